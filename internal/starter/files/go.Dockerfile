# Works on the public debian:bookworm-slim and on one made from a package
# mirror alone: the toolchain comes from the module proxy. Where Docker Hub is
# reached, "FROM golang:{{.Version}} AS test" can take the place of this stage.
FROM debian:bookworm-slim AS test
ARG GO_VERSION={{.Version}}
ARG GO_PROXY=https://proxy.golang.org
ENV PATH=/usr/local/go/bin:$PATH CGO_ENABLED=0 GOTOOLCHAIN=local
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean && \
    apt-get update -q && \
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends ca-certificates curl git unzip && \
    name=v0.0.1-go$GO_VERSION.linux-$(dpkg --print-architecture) && \
    curl -fsSL -o /tmp/go.zip "$GO_PROXY/golang.org/toolchain/@v/$name.zip" && \
    unzip -q /tmp/go.zip -d /tmp && \
    mv "/tmp/golang.org/toolchain@$name" /usr/local/go && \
    chmod -R a+rX /usr/local/go && chmod +x /usr/local/go/bin/* /usr/local/go/pkg/tool/*/* && \
    rm -rf /tmp/*
WORKDIR /src

FROM test AS build
# Before the code, so that a change of the code does not download again.
COPY go.mod go.su[m] ./
RUN --mount=type=cache,target=/root/go/pkg/mod go mod download
COPY . .
RUN --mount=type=cache,target=/root/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go build -trimpath -ldflags="-s -w" -o /out/app {{.Build}}

FROM debian:bookworm-slim AS release
ENV PORT={{.Port}}
COPY --from=test /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/app /usr/local/bin/app
USER 10001
EXPOSE {{.Port}}
CMD ["app"]
