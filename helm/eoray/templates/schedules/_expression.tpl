{{/*
Refuses a cron expression whose days exist in none of its months ("0 3 30 2 *"), which the API
server accepts. Looks at plain numbers and lists; ranges and steps are left to the server.
*/}}
{{- define "eoray.schedule.check" -}}
{{- $fields := regexSplit "\\s+" (trim .cron) -1 -}}
{{- if eq (len $fields) 5 -}}
{{- $days := index $fields 2 -}}
{{- $months := index $fields 3 -}}
{{- if and (regexMatch "^[0-9,]+$" $days) (regexMatch "^[0-9,]+$" $months) (eq (index $fields 4) "*") -}}
{{- $fires := false -}}
{{- range $month := splitList "," $months -}}
{{- $last := 31 -}}
{{- if eq (int $month) 2 }}{{ $last = 29 }}{{ else if has (int $month) (list 4 6 9 11) }}{{ $last = 30 }}{{ end -}}
{{- range $day := splitList "," $days -}}
{{- if le (int $day) $last }}{{ $fires = true }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if not $fires -}}
{{- fail (printf "cron expression %q never fires (schedules, %s): no month in it has that day; choose a day that exists" .cron .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
