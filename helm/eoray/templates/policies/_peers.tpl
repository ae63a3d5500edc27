{{/* Metadata of a policy. Takes root and name. */}}
{{- define "eoray.policy.head" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "eoray.labels" (dict "root" .root "component" "policies") | nindent 4 }}
{{- end }}

{{/* One peer from values: {cidr} or {namespace, podLabels}. Takes root and peer. */}}
{{- define "eoray.policy.peer" -}}
{{- if .peer.cidr }}
- {{ include "eoray.policy.block" (dict "root" .root "cidr" .peer.cidr) | indent 2 | trim }}
{{- else }}
- {{ include "eoray.policy.pods" .peer | trim | indent 2 | trim }}
{{- end }}
{{- end }}

{{/* A block of addresses; one that holds all of them leaves the metadata addresses out. */}}
{{- define "eoray.policy.block" -}}
ipBlock:
  cidr: {{ .cidr | quote }}
  {{- if hasSuffix "/0" .cidr }}
  except:
    {{- $isV6 := contains ":" .cidr }}
    {{- range .root.Values.networkPolicy.egress.metadata.denied }}
    {{- if eq $isV6 (contains ":" .) }}
    - {{ . | quote }}
    {{- end }}
    {{- end }}
  {{- end }}
{{- end }}

{{- define "eoray.policy.ports" -}}
{{- range . }}
- protocol: TCP
  port: {{ . }}
{{- end }}
{{- end }}

{{/* The way to the API server, as an entry of egress. */}}
{{- define "eoray.policy.api" -}}
{{- $api := .Values.networkPolicy.egress.apiServer -}}
- ports:
    {{- include "eoray.policy.ports" $api.ports | trim | nindent 4 }}
  to:
    {{- range $api.cidrs }}
    - {{ include "eoray.policy.block" (dict "root" $ "cidr" .) | indent 6 | trim }}
    {{- end }}
{{- end }}

{{- define "eoray.policy.run" -}}
matchLabels:
  app.kubernetes.io/part-of: eoray
matchExpressions:
  - {key: eoray.dev/run, operator: Exists}
{{- end }}

{{- define "eoray.policy.cluster" -}}
matchLabels:
  app.kubernetes.io/part-of: eoray
  eoray.dev/cluster: {{ include "eoray.cluster.name" . }}
{{- end }}

{{/* Pods of a namespace, pods here with labels, or both. */}}
{{- define "eoray.policy.pods" -}}
{{- with .namespace }}
namespaceSelector:
  matchLabels:
    kubernetes.io/metadata.name: {{ . }}
{{- end }}
{{- with .podLabels }}
podSelector:
  matchLabels:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}
