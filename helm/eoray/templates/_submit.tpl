{{/*
Pod of the submit image. Takes root, command (list), env (rendered entries, may be empty) and
config (name of the ConfigMap with the run file, may be empty).
*/}}
{{- define "eoray.submit.podSpec" -}}
{{- $submit := .root.Values.submit -}}
serviceAccountName: {{ .root.Values.serviceAccounts.submit.name }}
automountServiceAccountToken: true
restartPolicy: Never
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "eoray.security.pod" . | nindent 2 }}
{{- with $submit.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $submit.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $submit.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
containers:
  - name: submit
    image: {{ include "eoray.image" (dict "root" .root "image" .root.Values.image.submit) }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: {{ toJson .command }}
    env:
      - name: HOME
        value: /tmp
      - name: EORAY_NAMESPACE
        valueFrom:
          fieldRef:
            fieldPath: metadata.namespace
      {{- with .env }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with include "eoray.network.over" (dict "root" .root "env" $submit.env) | trim }}
      {{- . | nindent 6 }}
      {{- end }}
    {{- with include "eoray.envFrom" $submit.existingSecret | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    resources:
      {{- toYaml $submit.resources | nindent 6 }}
    securityContext:
      {{- include "eoray.security.container" . | nindent 6 }}
    volumeMounts:
      - name: tmp
        mountPath: /tmp
      {{- if .config }}
      - name: run
        mountPath: /etc/eoray
        readOnly: true
      {{- end }}
      {{- with include "eoray.network.mount" .root | trim }}
      {{- . | nindent 6 }}
      {{- end }}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: 64Mi
  {{- with .config }}
  - name: run
    configMap:
      name: {{ . }}
  {{- end }}
  {{- with include "eoray.network.volume" .root | trim }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* A map of plain values as a list, in the order of the names. */}}
{{- define "eoray.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "eoray.envFrom" -}}
{{- with . }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end }}
