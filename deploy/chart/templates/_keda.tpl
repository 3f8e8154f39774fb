{{/* What KEDA needs to know of each source, read in `config`. What it cannot tell (a name that comes
     from the environment, a connection string) has to be given as `keda.triggers`. */}}
{{- define "eventferry.triggers" -}}
{{- $name := include "eventferry.name" . }}
{{- $config := include "eventferry.config" . | fromJson }}
{{- if .Values.existingConfigMap }}{{ fail "keda.triggers: the chart cannot look into existingConfigMap; say what to scale by" }}{{ end }}
{{- $waiting := .Values.keda.eventsPerReplica | toString }}
{{- $account := dig "azure" "storage" "account" "" $config }}
{{- range $source, $kinds := $config.sources }}
{{- if contains "${" (toJson (omit $kinds "format" "max_in_flight")) }}{{ fail (printf "keda.triggers: config.sources.%s refers to the environment, which KEDA does not have; say what to scale by" $source) }}{{ end }}
{{- with $kinds.sqs }}
{{ include "eventferry.sqs" (dict "root" $ "source" $source "queue" .queue "config" $config "kind" .) }}
{{- end }}
{{- with $kinds.sns }}
{{ include "eventferry.sqs" (dict "root" $ "source" $source "queue" (default (printf "eventferry-%s" (splitList ":" .topic | last)) .queue) "config" $config "kind" .) }}
{{- end }}
{{- with $kinds.storage_queue }}
- type: azure-queue
  authenticationRef: { name: {{ $name }}-azure }
  metadata:
    accountName: {{ required (printf "keda.triggers: config.sources.%s has no storage account that KEDA could ask; say what to scale by" $source) (dig "azure" "storage" "account" $account .) }}
    queueName: {{ .queue }}
    queueLength: {{ $waiting | quote }}
{{- end }}
{{- with $kinds.event_hubs }}
{{- $blob := dig "state" "blob" "" $config }}
{{- if $blob }}
- type: azure-eventhub
  authenticationRef: { name: {{ $name }}-azure }
  metadata:
    # As the checkpoints are named: in lower case, and the namespace without its domain.
    eventHubNamespace: {{ required (printf "keda.triggers: config.sources.%s has a connection string; say what to scale by" $source) .namespace | splitList "." | first | lower }}
    eventHubName: {{ .hub | lower }}
    consumerGroup: {{ default "$Default" .consumer_group | quote }}
    unprocessedEventThreshold: {{ $waiting | quote }}
    checkpointStrategy: blobMetadata
    blobContainer: {{ $blob.container }}
    storageAccountName: {{ required "keda.triggers: there is no storage account that KEDA could ask; say what to scale by" (dig "azure" "storage" "account" $account $blob) }}
{{- else }}
{{- if eq (int $.Values.keda.minReplicas) 0 }}{{ fail (printf "keda.minReplicas: what waits for config.sources.%s is told by the daemon alone, as its state is in Redis; with none of it running nobody would ever start one, so leave 1" $source) }}{{ end }}
- type: prometheus
  metadata:
    serverAddress: {{ required (printf "keda.prometheus: KEDA cannot read the checkpoints of config.sources.%s in Redis; where is Prometheus?" $source) $.Values.keda.prometheus }}
    query: 'sum(max by (partition) (eventferry_backlog_events{namespace="{{ $.Release.Namespace }}", service="{{ $name }}", source="{{ $source }}"}))'
    threshold: {{ $waiting | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "eventferry.sqs" -}}
- type: aws-sqs-queue
  authenticationRef: { name: {{ include "eventferry.name" .root }}-aws }
  metadata:
    queueURL: {{ .queue }}
    queueLength: {{ .root.Values.keda.eventsPerReplica | toString | quote }}
    awsRegion: {{ required (printf "keda.triggers: config.sources.%s has no aws.region that KEDA could ask; say what to scale by" .source) (dig "aws" "region" (dig "aws" "region" "" .config) .kind) }}
{{- end }}
