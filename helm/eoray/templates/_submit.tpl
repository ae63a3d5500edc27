{{/*
Small pod. Takes root, command (list), env (rendered entries, may be empty) and config (name of the
ConfigMap with the run file, may be empty); as: account, token, image, env, secrets and resources,
those of the pods that submit if not given.
*/}}
{{- define "eoray.submit.podSpec" -}}
{{- $submit := .root.Values.submit -}}
{{- $as := .as | default (include "eoray.submit.as" .root | fromYaml) -}}
serviceAccountName: {{ $as.account }}
automountServiceAccountToken: {{ $as.token }}
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
    image: {{ $as.image }}
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
      {{- with include "eoray.network.over" (dict "root" .root "env" $as.env) | trim }}
      {{- . | nindent 6 }}
      {{- end }}
    {{- with include "eoray.envFrom" $as.secrets | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    resources:
      {{- toYaml $as.resources | nindent 6 }}
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

{{- define "eoray.submit.as" -}}
{{- $submit := .Values.submit -}}
account: {{ .Values.serviceAccounts.submit.name }}
token: true
image: {{ include "eoray.image" (dict "root" . "image" .Values.image.submit) }}
env:
  {{- toYaml $submit.env | nindent 2 }}
secrets: {{ compact (list $submit.existingSecret) | toJson }}
resources:
  {{- toYaml $submit.resources | nindent 2 }}
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
  {{- range . }}
  - secretRef:
      name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
