{{/* Start of the newest failed Job of each schedule, by cronjob. Takes in (label matchers). */}}
{{- define "eoray.rules.failedStart" -}}
max by (namespace, cronjob) (label_replace(
  kube_job_status_start_time{ {{- .in -}} }
    * on (namespace, job_name) group_left (owner_name)
      kube_job_owner{ {{- .in -}} , owner_kind="CronJob", owner_name=~"{{ .names }}"}
    and on (namespace, job_name) (kube_job_failed{ {{- .in -}} , condition="true"} == 1),
  "cronjob", "$1", "owner_name", "(.*)"))
{{- end }}
