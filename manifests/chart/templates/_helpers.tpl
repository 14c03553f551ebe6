{{/* Labels of every object: (list . NAME). */}}
{{- define "gpudetour.labels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/part-of: gpudetour
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Values.managedBy | default $root.Release.Service }}
{{- end }}

{{- define "gpudetour.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What a distribution does otherwise than kubeadm: fromYaml it. */}}
{{- define "gpudetour.preset" -}}
{{- $kubeadm := dict "clusterIP" "10.96.0.51" "kubeletDir" "/var/lib/kubelet" -}}
{{- $rancher := dict "clusterIP" "10.43.0.51" "hasRuntimeClass" true -}}
{{- $presets := dict
  "kubeadm" dict
  "talos" dict
  "k3s" $rancher
  "rke2" $rancher
  "k0s" (dict "kubeletDir" "/var/lib/k0s/kubelet")
  "microk8s" (dict "clusterIP" "10.152.183.51" "kubeletDir" "/var/snap/microk8s/common/var/lib/kubelet")
-}}
{{- merge dict (get $presets .Values.flavor) $kubeadm | toYaml -}}
{{- end }}

{{- define "gpudetour.second" -}}
{{- if eq .Values.scheduler.mode "second" }}true{{ end -}}
{{- end }}

{{/* The Lease by which the extender leads, and which is the fence. */}}
{{- define "gpudetour.lease" -}}
{{- if include "gpudetour.second" . }}gpudetour-scheduler{{ else }}gpudetour-extender{{ end -}}
{{- end }}

{{/* How the control parts' pods run: (list . NAME). Within the level "restricted". */}}
{{- define "gpudetour.controlPod" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ index . 1 }}
automountServiceAccountToken: true
priorityClassName: system-cluster-critical
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
nodeSelector: {{- toYaml $root.Values.control.nodeSelector | nindent 2 }}
tolerations: {{- toYaml $root.Values.control.tolerations | nindent 2 }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {app.kubernetes.io/name: {{ index $ 1 }}}
  {{- end }}
{{- end }}

{{- define "gpudetour.closedContainer" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Annotations by which Prometheus finds what to scrape. */}}
{{- define "gpudetour.scrape" -}}
{{- if .Values.metrics.annotations }}
annotations:
  prometheus.io/scrape: "true"
  prometheus.io/port: "8080"
  prometheus.io/path: /metrics
{{- end }}
{{- end }}

{{/* CEL: that the given variable is a ConfigMap in which the extender records who held GPUs. */}}
{{- define "gpudetour.usage-record" -}}
request.resource.resource == 'configmaps' && request.namespace == 'gpudetour-system'
            && {{ . }}.metadata.name.startsWith('gpudetour-usage-')
{{- end }}
