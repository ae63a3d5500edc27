{{/*
Variables of the proxy and the certificates as a map; eoray/k8s/network.py gives pods of runs the
same, and a test compares them.
*/}}
{{- define "eoray.network.env" -}}
{{- $env := dict -}}
{{- with .Values.network.proxy -}}
{{- $inside := list "localhost" "127.0.0.1" "::1" ".svc" ".cluster.local" -}}
{{- $identity := list "169.254.169.254" "169.254.169.252" "169.254.170.2" "169.254.170.23" "fd00:ec2::254" "fd00:ec2::23" "metadata.google.internal" -}}
{{- $around := concat $inside $identity (list "$(KUBERNETES_SERVICE_HOST)") $.Values.network.noProxy | join "," -}}
{{- range $name, $value := dict "HTTP_PROXY" . "HTTPS_PROXY" . "NO_PROXY" $around -}}
{{- $_ := set $env $name $value -}}
{{- $_ := set $env (lower $name) $value -}}
{{- end -}}
{{- end -}}
{{- if include "eoray.network.hasCa" . -}}
{{- range list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "CURL_CA_BUNDLE" "GDAL_CURL_CA_BUNDLE" "PROJ_CURL_CA_BUNDLE" "AWS_CA_BUNDLE" -}}
{{- $_ := set $env . "/etc/eoray-ca/ca.crt" -}}
{{- end -}}
{{- end -}}
{{- toYaml $env -}}
{{- end }}

{{/* Environment of a container: the network's, over which stands what .env says. Takes root and env. */}}
{{- define "eoray.network.over" -}}
{{- $network := include "eoray.network.env" .root | fromYaml -}}
{{- include "eoray.env" (merge (deepCopy .env) $network) -}}
{{- end }}

{{- define "eoray.network.hasCa" -}}
{{- or .Values.network.ca.configMap .Values.network.ca.secret -}}
{{- end }}

{{- define "eoray.network.mount" -}}
{{- if include "eoray.network.hasCa" . -}}
- name: ca
  mountPath: /etc/eoray-ca
  readOnly: true
{{- end -}}
{{- end }}

{{- define "eoray.network.volume" -}}
{{- if include "eoray.network.hasCa" . -}}
{{- $ca := .Values.network.ca -}}
- name: ca
  {{- if $ca.secret }}
  secret:
    secretName: {{ $ca.secret }}
  {{- else }}
  configMap:
    name: {{ $ca.configMap }}
  {{- end }}
    items:
      - key: {{ $ca.key }}
        path: ca.crt
{{- end -}}
{{- end }}
