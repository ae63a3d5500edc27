{{/* The Job's name ends with the scheduled minute, from which the run computes its window. */}}
{{- define "eoray.schedule.env" -}}
- name: EORAY_JOB_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['batch.kubernetes.io/job-name']
- name: EORAY_SCHEDULE
  value: {{ .name }}
{{- end }}
