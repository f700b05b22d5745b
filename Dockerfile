# docker build -t quorate .
# An image of the server and its client: one static binary, no shell, no root.

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG RELEASE=
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.release=${RELEASE}" -o /out/quorate ./cmd/quorate \
    && mkdir -p /out/data

FROM scratch
# The authorities of https discovery services.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/quorate /quorate
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
ENV QUORATE_DATA_DIR=/data \
    QUORATE_LISTEN_CLIENT_URLS=http://0.0.0.0:2379 \
    QUORATE_LISTEN_PEER_URLS=http://0.0.0.0:2380 \
    QUORATE_ADVERTISE_CLIENT_URLS=http://localhost:2379
VOLUME /data
EXPOSE 2379 2380
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/quorate", "health"]
ENTRYPOINT ["/quorate"]
CMD ["serve"]
