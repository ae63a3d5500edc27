{{/*
What every submission needs: the RayJob and the end of the oldest ones, its run file, its head's
disruption budget, and what explains Pending.
*/}}
{{- define "eoray.rules.submit" -}}
- apiGroups: [ray.io]
  resources: [rayjobs]
  verbs: [create, get, list, watch, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create, patch]
- apiGroups: [""]
  resources: [pods, events]
  verbs: [get, list, watch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [create]
{{- end }}
