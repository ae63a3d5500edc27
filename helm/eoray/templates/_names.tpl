{{/* The long-lived cluster has one name, so that its token Secret has one too. */}}
{{- define "eoray.cluster.name" -}}
eoray
{{- end }}

{{- define "eoray.labels" -}}
app.kubernetes.io/name: eoray
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: eoray
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels of pods carry no version: a chart upgrade then changes no pod that it need not. */}}
{{- define "eoray.podLabels" -}}
app.kubernetes.io/name: eoray
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: eoray
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Reference of an image: registry/repository@digest, else registry/repository:tag. */}}
{{- define "eoray.image" -}}
{{- $image := .image -}}
{{- $path := $image.repository -}}
{{- with .root.Values.image.registry }}{{ $path = printf "%s/%s" (trimSuffix "/" .) $path }}{{ end -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $path $image.digest }}
{{- else -}}
{{ printf "%s:%s" $path (default .root.Chart.AppVersion $image.tag) }}
{{- end -}}
{{- end }}
