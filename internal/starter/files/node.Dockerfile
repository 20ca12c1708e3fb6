# Works on the public debian:bookworm-slim and on one made from a package
# mirror alone. For a newer Node write node:22-slim here and leave out nodejs
# and npm below.
FROM debian:bookworm-slim AS runtime
ENV NODE_ENV=production PORT={{.Port}}
# Package lists and archives stay in a build cache, not in the image.
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean && \
    apt-get update -q && \
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends ca-certificates nodejs && \
    rm -rf /usr/share/doc /usr/share/man /var/log/* && \
    useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin app
WORKDIR /srv

# The image in which the pipeline's jobs run.
FROM runtime AS test
ENV NODE_ENV=development
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -q && \
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends git npm

FROM test AS build
# Before the code, so that a change of the code does not install again.
COPY package.json {{if .Lock}}package-lock.json {{end}}./
RUN --mount=type=cache,target=/root/.npm npm {{if .Lock}}ci{{else}}install{{end}} --no-audit --no-fund
COPY . .
{{- if .Build}}
RUN npm run build
{{- end}}
RUN npm prune --omit=dev --no-audit --no-fund

FROM runtime AS release
COPY --from=build /srv .
USER 10001
EXPOSE {{.Port}}
CMD {{json .Words}}
