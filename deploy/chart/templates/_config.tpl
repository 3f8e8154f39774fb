{{/* What `config` says, as JSON: it may be text or content. {} with `existingConfigMap`. */}}
{{- define "eventferry.config" -}}
{{- $config := .Values.config }}
{{- if kindIs "string" $config }}
  {{- $config = fromYaml $config }}
  {{- if hasKey $config "Error" }}{{ fail (printf "config: no YAML: %s" $config.Error) }}{{ end }}
{{- end }}
{{- if and $config .Values.existingConfigMap }}{{ fail "give either config or existingConfigMap" }}{{ end }}
{{- if not (or $config .Values.existingConfigMap) }}{{ fail "config: what shall the daemon do? Give its configuration, or name an existingConfigMap" }}{{ end }}
{{- if hasKey $config "drain" }}{{ fail "config.drain: use drainGraceSeconds of the chart, from which the pod's grace period follows" }}{{ end }}
{{- if hasKey $config "admin" }}
  {{- if not (kindIs "map" $config.admin) }}{{ fail "config.admin: the chart has it listen on port 8080 of the pod; give its other settings, or take it out" }}{{ end }}
  {{- if hasKey $config.admin "listen" }}{{ fail "config.admin.listen: the chart sets it to port 8080 of the pod; take it out" }}{{ end }}
{{- end }}
{{- range $setting, $content := $config }}
  {{- if kindIs "invalid" $content }}{{ $config = omit $config $setting }}{{ end }}
{{- end }}
{{- toJson $config }}
{{- end }}

{{/* Where the state is: embedded, shared or none. Without `state` the daemon keeps it in a file if
     an event hub or a route with `dedup` needs it, and so the chart does. */}}
{{- define "eventferry.state" -}}
{{- $config := include "eventferry.config" . | fromJson }}
{{- $said := dig "state" "" $config }}
{{- $found := "none" }}
{{- if kindIs "map" $said }}
  {{- $found = ternary "embedded" "shared" (hasKey $said "embedded") }}
{{- else if not $said }}
  {{- range $config.sources }}{{ if or .event_hubs (eq (dig "memory" "kind" "" .) "log") }}{{ $found = "embedded" }}{{ end }}{{ end }}
  {{- range $config.routes }}{{ if .dedup }}{{ $found = "embedded" }}{{ end }}{{ end }}
{{- end }}
{{- if ne .Values.state "auto" }}
  {{- if and $config (ne .Values.state $found) }}{{ fail (printf "state: %s, but config has a state that is %s; leave out the former" .Values.state $found) }}{{ end }}
  {{- $found = .Values.state }}
{{- else if .Values.existingConfigMap }}
  {{- fail "state: with existingConfigMap say embedded, shared or none" }}
{{- end }}
{{- if eq $found "embedded" }}
  {{- if gt (int .Values.replicas) 1 }}{{ fail "replicas: a state in a file has one replica; use `state: redis` or `state: blob` in config for more" }}{{ end }}
  {{- if .Values.keda.enabled }}{{ fail "keda: a state in a file has one replica; use `state: redis` or `state: blob` in config to scale" }}{{ end }}
{{- end }}
{{- $found }}
{{- end }}

{{/* What the admin listener speaks. A configuration that the chart cannot see is taken for one without
     `admin.tls`, unless `admin.scheme` says otherwise. HTTPS can be said of one that it sees, too: `tls`
     may come from the environment. */}}
{{- define "eventferry.scheme" -}}
{{- $found := "HTTP" }}
{{- if dig "admin" "tls" "" (include "eventferry.config" . | fromJson) }}
  {{- if eq .Values.admin.scheme "HTTP" }}{{ fail "admin.scheme: HTTP, but config has admin.tls; leave out the former" }}{{ end }}
  {{- $found = "HTTPS" }}
{{- end }}
{{- if ne .Values.admin.scheme "auto" }}{{ $found = .Values.admin.scheme }}{{ end }}
{{- $found }}
{{- end }}

{{- define "eventferry.configMap" -}}
{{- default (include "eventferry.name" .) .Values.existingConfigMap }}
{{- end }}

{{- define "eventferry.files" -}}
eventferry.yaml: |
  {{- if kindIs "string" .Values.config }}
  {{- .Values.config | trim | nindent 2 }}
  {{- else }}
  {{- toYaml .Values.config | nindent 2 }}
  {{- end }}
{{- range $name, $text := .Values.files }}
{{ $name }}: |
  {{- $text | trim | nindent 2 }}
{{- end }}
{{- end }}
