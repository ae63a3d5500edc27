{{/*
Pod template of the long-lived cluster. Takes root, spec (head or group from values), container
(its name), image, isHead.
*/}}
{{- define "eoray.cluster.pod" -}}
{{- $values := .root.Values -}}
metadata:
  labels:
    {{- include "eoray.podLabels" (dict "root" .root "component" "ray") | nindent 4 }}
    eoray.dev/cluster: {{ include "eoray.cluster.name" . }}
  {{- if .isHead }}
  annotations:
    cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
    karpenter.sh/do-not-disrupt: "true"
  {{- end }}
spec:
  serviceAccountName: {{ $values.serviceAccounts.ray.name }}
  automountServiceAccountToken: {{ and .isHead $values.ray.autoscaling }}
  # The autoscaler (v2) replaces lost pods itself and wants them not restarted in place.
  restartPolicy: {{ ternary "Never" "Always" $values.ray.autoscaling }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .spec.terminationGracePeriodSeconds | default 60 | int64 }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "eoray.security.pod" . | nindent 4 }}
  {{- with .spec.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if or .isHead .spec.tolerations }}
  tolerations:
    {{- if .isHead }}
    # The default of 300 s is longer than the operator waits for a silent head.
    - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
    - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
    {{- end }}
    {{- with .spec.tolerations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- with .spec.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- if .spec.spread }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          eoray.dev/cluster: {{ include "eoray.cluster.name" . }}
          ray.io/group: {{ .spec.name }}
  {{- end }}
  containers:
    - name: {{ .container }}
      image: {{ include "eoray.image" (dict "root" .root "image" .image) }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      env:
        - name: HOME
          value: /home/ray
        - name: RAY_USAGE_STATS_ENABLED
          value: "0"
        {{- with include "eoray.network.over" (dict "root" .root "env" $values.ray.env) | trim }}
        {{- . | nindent 8 }}
        {{- end }}
      {{- with include "eoray.envFrom" (compact (list $values.ray.existingSecret)) | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      ports:
        {{- if .isHead }}
        - {name: gcs-server, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: client, containerPort: 10001}
        {{- end }}
        - {name: metrics, containerPort: 8080}
      resources:
        {{- range $kind := list "requests" "limits" }}
        {{ $kind }}:
          {{- toYaml (get $.spec.resources $kind) | nindent 10 }}
          {{- with $.spec.gpus }}
          nvidia.com/gpu: {{ . | quote }}
          {{- end }}
        {{- end }}
      securityContext:
        {{- include "eoray.security.container" . | nindent 8 }}
      volumeMounts:
        - {name: shm, mountPath: /dev/shm}
        - {name: tmp, mountPath: /tmp}
        - {name: home, mountPath: /home/ray}
        {{- with include "eoray.network.mount" .root | trim }}
        {{- . | nindent 8 }}
        {{- end }}
  volumes:
    - name: shm
      emptyDir:
        medium: Memory
        # A little more than the object store, for other users of shared memory.
        sizeLimit: {{ add .spec.objectStoreMiB 256 }}Mi
    - name: tmp
      emptyDir:
        sizeLimit: {{ .spec.tmpSize }}
    - name: home
      emptyDir:
        sizeLimit: 1Gi
    {{- with include "eoray.network.volume" .root | trim }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "eoray.cluster.objectStore" -}}
{{ mul .objectStoreMiB 1048576 | quote }}
{{- end }}
