{{/* The pod, the same for a Deployment and a StatefulSet. */}}
{{- define "eventferry.pod" -}}
{{- $state := include "eventferry.state" . }}
metadata:
  labels:
    {{- include "eventferry.labels" . | nindent 4 }}
    {{- if .Values.serviceAccount.azureClientId }}
    azure.workload.identity/use: "true"
    {{- end }}
    {{- with .Values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- if or .Values.podAnnotations .Values.restartOnConfigChange }}
  annotations:
    {{- if and .Values.restartOnConfigChange (not .Values.existingConfigMap) }}
    checksum/config: {{ include "eventferry.files" . | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- end }}
spec:
  serviceAccountName: {{ include "eventferry.serviceAccount" . }}
  # Nothing here speaks to Kubernetes. The tokens of AWS and Azure are mounted by their webhooks.
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add .Values.drainGraceSeconds .Values.preStopSleepSeconds 10 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: { type: RuntimeDefault }
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  containers:
    - name: eventferry
      image: {{ include "eventferry.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [run, --config, /etc/eventferry/eventferry.yaml]
      env:
        - { name: EVENTFERRY__ADMIN__LISTEN, value: "0.0.0.0:8080" }
        - { name: EVENTFERRY__DRAIN__GRACE, value: {{ .Values.drainGraceSeconds }}s }
        {{- if eq $state "embedded" }}
        - { name: EVENTFERRY__STATE__EMBEDDED__PATH, value: /var/lib/eventferry/state }
        {{- end }}
        {{- with .Values.logging }}
        - { name: RUST_LOG, value: {{ . | quote }} }
        {{- end }}
        {{- with .Values.env }}{{ toYaml . | nindent 8 }}{{ end }}
      {{- with .Values.envFrom }}
      envFrom: {{ toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - { name: admin, containerPort: 8080 }
      # Millions of keys in the embedded store take a while to be read, before anything answers.
      startupProbe:
        httpGet: { path: /livez, port: admin, scheme: {{ include "eventferry.scheme" . }} }
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 150
      livenessProbe:
        httpGet: { path: /livez, port: admin, scheme: {{ include "eventferry.scheme" . }} }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: { path: /readyz, port: admin, scheme: {{ include "eventferry.scheme" . }} }
        periodSeconds: 5
        timeoutSeconds: 3
      {{- if .Values.preStopSleepSeconds }}
      lifecycle:
        preStop: { sleep: { seconds: {{ .Values.preStopSleepSeconds }} } }
      {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: { drop: [ALL] }
      resources: {{ toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        # The directory, not a file of it with subPath: that one would never change.
        - { name: config, mountPath: /etc/eventferry, readOnly: true }
        {{- if eq $state "embedded" }}
        - { name: state, mountPath: /var/lib/eventferry }
        {{- end }}
        {{- with .Values.volumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    - name: config
      configMap: { name: {{ include "eventferry.configMap" . }} }
    {{- with .Values.volumes }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- if .Values.topologySpread }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{ include "eventferry.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
