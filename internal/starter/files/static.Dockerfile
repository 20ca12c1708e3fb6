# A static site behind nginx. Works on the public debian:bookworm-slim and on
# one made from a package mirror alone.
FROM debian:bookworm-slim
# Package lists and archives stay in a build cache, not in the image.
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean && \
    apt-get update -q && \
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends nginx-light && \
    rm -rf /var/log/* /usr/share/doc /usr/share/man && \
    useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin app
COPY nginx.conf /etc/nginx/nginx.conf
COPY {{if eq .Site "."}}.{{else}}{{.Site}}/{{end}} /srv/
{{- if eq .Site "."}}
RUN rm -f /srv/nginx.conf /srv/Dockerfile
{{- end}}
USER 10001
EXPOSE {{.Port}}
STOPSIGNAL SIGQUIT
CMD ["nginx", "-e", "stderr"]
