{{/* Labels of every object. No version among them: an upgrade changes no object that stays as it was. */}}
{{- define "resurgam.labels" -}}
app.kubernetes.io/name: resurgam
app.kubernetes.io/part-of: resurgam
{{- end }}

{{- define "resurgam.selector" -}}
app.kubernetes.io/name: resurgam
app.kubernetes.io/component: operator
{{- end }}

{{/* What an uninstall leaves, and why, is in docs/install.md. */}}
{{- define "resurgam.keep" -}}
helm.sh/resource-policy: keep
{{- end }}

{{- define "resurgam.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}:{{ $tag }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end -}}
{{- end }}

{{/* One where a volume can be mounted by one node only. */}}
{{- define "resurgam.replicas" -}}
{{- $alone := and (not .Values.evidence.s3.bucket) (ne .Values.evidence.volume.accessMode "ReadWriteMany") -}}
{{- if and $alone (gt (int .Values.replicas) 1) -}}
{{- fail "replicas is more than 1, but evidence is on a volume that one node mounts at a time: set evidence.s3.bucket, or evidence.volume.accessMode to ReadWriteMany" -}}
{{- end -}}
{{- if .Values.replicas }}{{ .Values.replicas }}{{ else if $alone }}1{{ else }}2{{ end -}}
{{- end }}

{{- define "resurgam.validate" -}}
{{- if ne .Release.Namespace "resurgam-system" -}}
{{- fail (printf "resurgam is installed into namespace resurgam-system and no other, because its admission policies trust the operator's account there; this is %s. Run: helm install %s … --namespace resurgam-system --create-namespace" .Release.Namespace .Release.Name) -}}
{{- end -}}
{{- end }}
