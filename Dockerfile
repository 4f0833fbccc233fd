# Runs on the builder's platform and cross-compiles for the target, so without emulation.
FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY auth auth
COPY bridge bridge
COPY cmd cmd
COPY publisher publisher
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=development
ARG COMMIT=
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION -X main.commit=$COMMIT" -o /out/plaspy-bridge ./cmd/plaspy-bridge \
 && mkdir -p /out/data /out/tmp

FROM scratch
ARG VERSION=development
ARG COMMIT=
LABEL org.opencontainers.image.title="plaspy-bridge" \
      org.opencontainers.image.description="Locations and alerts between the Plaspy REST API and NATS" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/plaspy-bridge /plaspy-bridge
# Owned by the user below, because a new volume takes its owner from this folder.
COPY --from=build --chown=65532:65532 /out/data /data
# The demo keeps its data in a temporary folder.
COPY --from=build --chown=65532:65532 /out/tmp /tmp
USER 65532:65532
# Loopback cannot be reached from outside a container. The live view is disabled on
# other interfaces until BRIDGE_HTTP_TOKEN is set. The embedded NATS server requires
# no login, so it stays on loopback unless the operator changes it.
ENV BRIDGE_DATA_DIR=/data \
    BRIDGE_HTTP_ADDR=:8080
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# Liveness, not readiness: a restart does not help a bridge that cannot reach the API.
HEALTHCHECK --interval=30s --timeout=6s --start-period=30s --retries=3 CMD ["/plaspy-bridge", "health", "--live"]
ENTRYPOINT ["/plaspy-bridge"]
CMD ["run"]
