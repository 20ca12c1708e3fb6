# Works on the public debian:bookworm-slim and on one made from a package
# mirror alone. For a newer Python write python:3.13-slim here.
FROM debian:bookworm-slim AS runtime
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:$PATH PORT={{.Port}}
# Package lists and archives stay in a build cache, not in the image.
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean && \
    apt-get update -q && \
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3 python3-venv ca-certificates && \
    rm -rf /usr/share/doc /usr/share/man /var/log/* && \
    python3 -m venv --system-site-packages /opt/venv && \
    useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin app
WORKDIR /srv
{{- if .Lock}}
# Before the code, so that a change of the code does not install again.
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache/pip pip install -q -r requirements.txt
{{- else if eq .Why "pyproject.toml" "setup.py"}}
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip pip install -q .
{{- end}}

# The image in which the pipeline's jobs run.
FROM runtime AS test
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -q && \
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends git{{if .Tests}} python3-pytest python3-pytest-cov{{end}}

FROM runtime AS release
COPY . .
USER 10001
EXPOSE {{.Port}}
CMD {{json .Words}}
