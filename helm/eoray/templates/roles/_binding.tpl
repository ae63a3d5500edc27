{{/* Binds role to the users, groups and service accounts of who; nothing where there are none. */}}
{{- define "eoray.binding" -}}
{{- if or .who.users .who.groups .who.serviceAccounts }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .role }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "eoray.labels" (dict "root" .root "component" "roles") | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .role }}
subjects:
  {{- include "eoray.subjects" (dict "root" .root "who" .who) | nindent 2 }}
{{- end }}
{{- end }}

{{- define "eoray.subjects" -}}
{{- range .who.users }}
- kind: User
  apiGroup: rbac.authorization.k8s.io
  name: {{ . | quote }}
{{- end }}
{{- range .who.groups }}
- kind: Group
  apiGroup: rbac.authorization.k8s.io
  name: {{ . | quote }}
{{- end }}
{{- range .who.serviceAccounts }}
- kind: ServiceAccount
  name: {{ . }}
  namespace: {{ $.root.Release.Namespace }}
{{- end }}
{{- end }}
