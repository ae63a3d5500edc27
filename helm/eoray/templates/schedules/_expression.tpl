{{/*
Refuses a cron expression whose days exist in none of its months ("0 3 30-31 2 *"), which the API
server accepts. What is no expression at all is left to the server, which refuses that itself.
*/}}
{{- define "eoray.schedule.check" -}}
{{- $fields := regexSplit "\\s+" (trim .cron) -1 -}}
{{- if eq (len $fields) 5 -}}
{{- $days := include "eoray.schedule.values" (dict "part" (index $fields 2) "low" 1 "high" 31) -}}
{{- $months := include "eoray.schedule.values" (dict "part" (index $fields 3) "low" 1 "high" 12) -}}
{{- $anyWeekday := regexMatch "(^|,)[*?](/1)?(,|$)" (index $fields 4) -}}
{{- if and $anyWeekday $days $months -}}
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

{{/*
Values of a field (part) between low and high, with commas: lists, ranges, steps, names of months.
Nothing where it is no such field.
*/}}
{{- define "eoray.schedule.values" -}}
{{- $part := lower .part -}}
{{- range $number, $name := list "jan" "feb" "mar" "apr" "may" "jun" "jul" "aug" "sep" "oct" "nov" "dec" -}}
{{- $part = replace $name (toString (add1 $number)) $part -}}
{{- end -}}
{{- $values := list -}}
{{- if regexMatch "^([*?]|[0-9]+(-[0-9]+)?)(/[1-9][0-9]*)?(,([*?]|[0-9]+(-[0-9]+)?)(/[1-9][0-9]*)?)*$" $part -}}
{{- range $piece := splitList "," $part -}}
{{- $spread := splitList "/" $piece -}}
{{- $ends := splitList "-" (first $spread) -}}
{{- $low := int (first $ends) -}}
{{- $high := int (last $ends) -}}
{{- if has (first $ends) (list "*" "?") -}}
{{- $low = $.low -}}
{{- $high = $.high -}}
{{- else if and (eq (len $ends) 1) (eq (len $spread) 2) -}}
{{- $high = $.high -}}
{{- end -}}
{{- $step := 1 -}}
{{- if eq (len $spread) 2 }}{{ $step = int (last $spread) }}{{ end -}}
{{- if le $high $.high -}}
{{- $values = concat $values (untilStep $low (int (add1 $high)) $step) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- join "," $values -}}
{{- end }}
