{{- define "gpudev.labels" -}}
app.kubernetes.io/name: gpudev
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* Of the pods of one part: what selects them. Takes (list $ "auth"). */ -}}
{{- define "gpudev.selector" -}}
app.kubernetes.io/name: gpudev
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /* The image of one part. Takes (list $ "auth"). */ -}}
{{- define "gpudev.image" -}}
{{- $root := index . 0 }}{{- $name := index . 1 }}{{- $image := $root.Values.image }}
{{- with $image.registry }}{{ trimSuffix "/" . }}/{{ end }}gpudev-{{ $name }}
{{- with index $image.digests $name }}@{{ . }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "gpudev.secret" -}}
{{- $root := index . 0 }}{{- $name := index . 1 }}
{{- (index $root.Values.services $name).secret | default (printf "%s-%s" $root.Release.Name $name) }}
{{- end }}

{{- /* Where a service answers inside the cluster. Takes (list $ "auth"). */ -}}
{{- define "gpudev.url" -}}
{{- $root := index . 0 -}}
http://{{ $root.Release.Name }}-{{ index . 1 }}.{{ $root.Release.Namespace }}:{{ $root.Values.ports.http }}
{{- end }}

{{- /* A setting's value as text. Numbers by toJson: Helm reads them as floats, and prints large ones as 1e+09. */ -}}
{{- define "gpudev.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}

{{- /* The variables of a service: settings by name, what the chart knows itself, and those of its Secret. */ -}}
{{- define "gpudev.environment" -}}
{{- $root := index . 0 }}{{- $name := index . 1 }}
{{- $service := index $root.Values.services $name }}
{{- $known := $root.Files.Get "files/generated.yaml" | fromYaml }}
{{- $own := dict "http_port" $root.Values.ports.http "metrics_port" $root.Values.ports.metrics "auth_urls" (include "gpudev.url" (list $root "auth")) }}
{{- if has $name $known.cluster }}{{ $_ := set $own "namespace" $root.Values.namespaces.jobs }}{{ end }}
{{- if eq $name "jobs" }}{{ $_ := set $own "tools_image" (include "gpudev.image" (list $root "tools")) }}{{ end }}
{{- if $root.Values.nats.credentials }}{{ $_ := set $own "nats_credentials_file" "/etc/gpudev/nats/nats.creds" }}{{ end }}
{{- /* what jobs' pods get is counted by capacity */ -}}
{{- $jobs := dict }}
{{- if eq $name "capacity" }}
{{- range $known.ofJobs }}{{ $_ := set $jobs . (index $root.Values.services.jobs.settings .) }}{{ end }}
{{- end }}
{{- $settings := dict }}
{{- range $source := list $own $root.Values.settings $jobs $service.settings }}
{{- range $key, $value := $source }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}{{ $_ := set $settings $key $value }}{{ end }}
{{- end }}
{{- end }}
{{- if not (hasKey $settings "replica") }}
- name: GPUDEV_REPLICA
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end }}
{{- range $key, $value := $settings }}
- name: GPUDEV_{{ upper $key }}
  value: {{ include "gpudev.text" $value | quote }}
{{- end }}
{{- range $key, $optional := index $known.secrets $name }}
{{ include "gpudev.secretVariable" (list $root $name $key $optional) }}
{{- end }}
{{- with $service.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "gpudev.secretVariable" -}}
- name: GPUDEV_{{ upper (index . 2) }}
  valueFrom:
    secretKeyRef:
      name: {{ include "gpudev.secret" (list (index . 0) (index . 1)) }}
      key: GPUDEV_{{ upper (index . 2) }}
{{- if index . 3 }}
      optional: true
{{- end }}
{{- end }}

{{- /* What every pod of the control plane has: Pod Security's `restricted`. */ -}}
{{- define "gpudev.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "gpudev.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- end }}

{{- define "gpudev.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if or .Values.certificates.configMap .Values.certificates.secret }}
- {name: certificates, mountPath: /etc/gpudev/certificates, readOnly: true}
{{- end }}
{{- end }}

{{- define "gpudev.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- if .Values.certificates.secret }}
- name: certificates
  secret: {secretName: {{ .Values.certificates.secret }}}
{{- else if .Values.certificates.configMap }}
- name: certificates
  configMap: {name: {{ .Values.certificates.configMap }}}
{{- end }}
{{- end }}

{{- define "gpudev.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
