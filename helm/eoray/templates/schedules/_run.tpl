{{/*
Refuses a run file that its pod would refuse at the first tick, where a look at the text tells:
what stands in `vars` is not filled in, and the pod checks all of it. Takes a schedule.
*/}}
{{- define "eoray.schedule.checkRun" -}}
{{- $run := fromYaml .runFile -}}
{{- $cluster := $run.cluster | default dict -}}
{{- if $run.include -}}
{{- fail (printf "runFile of schedule %q includes other files, and its pod has this one alone: give what `eoray render` prints as run.yaml" .name) -}}
{{- end -}}
{{- if not (or $cluster.image $cluster.ray_cluster) -}}
{{- fail (printf "runFile of schedule %q has no cluster.image: name the image of head and workers, best by digest" .name) -}}
{{- end -}}
{{- $claims := list -}}
{{- range $cluster.claims }}{{ $claims = append $claims (printf "%s/" (trimSuffix "/" .path)) }}{{ end -}}
{{- range $key := list "aoi" "source.catalog" "store" "cube.dem" "fit.labels" "predict.model" "assess.reference" -}}
{{- $value := $run -}}
{{- range splitList "." $key }}{{ $value = kindIs "map" $value | ternary $value dict | dig . "" }}{{ end -}}
{{- if and (kindIs "string" $value) $value (not (contains "://" $value)) (not (contains "${" $value)) -}}
{{- $seen := false -}}
{{- range $claims }}{{ $seen = or $seen (hasPrefix . (printf "%s/" $value)) }}{{ end -}}
{{- if not $seen -}}
{{- fail (printf "runFile of schedule %q: pods do not see %s %q; put it where they do (s3://bucket/..., or below a claim of cluster.claims)" $.name $key $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .runDeadlineSeconds (lt (int64 .runDeadlineSeconds) (include "eoray.schedule.seconds" . | int64)) -}}
{{- fail (printf "runDeadlineSeconds of schedule %q is %d, but cluster.start_minutes and cluster.deadline_minutes of its run file are %s s together: leave it out, or lower those" .name (int64 .runDeadlineSeconds) (include "eoray.schedule.seconds" .)) -}}
{{- end -}}
{{- end }}

{{/*
Seconds that a run may take by its run file, its phases one after another. Which stages there are,
only eoray knows: this counts the phases of all of them. Takes a schedule.
*/}}
{{- define "eoray.schedule.seconds" -}}
{{- $cluster := (fromYaml .runFile).cluster | default dict -}}
{{- $minutes := add ($cluster.start_minutes | default 30 | int64) ($cluster.deadline_minutes | default 720 | int64) -}}
{{- $phases := 0 -}}
{{- $last := "" -}}
{{- range $stage := list "cube" "fit" "predict" "change" "assess" "publish" "report" -}}
{{- $groups := "" -}}
{{- range $cluster.workers -}}
{{- if or (not .stages) (has $stage .stages) }}{{ $groups = printf "%s,%s" $groups .name }}{{ end -}}
{{- end -}}
{{- if and $groups (ne $groups $last) -}}
{{- $phases = add1 $phases -}}
{{- $last = $groups -}}
{{- end -}}
{{- end -}}
{{- mul $minutes 60 (.phases | default false | ternary (max 1 $phases) 1) -}}
{{- end }}
