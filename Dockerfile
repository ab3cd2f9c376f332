# syntax=docker/dockerfile:1

# Debian's release must be the one that the last stage is made of: the binary is linked against its C library.
FROM rust:1.95-bookworm AS build
WORKDIR /src

# Only what the binary is made of, so that a changed document builds nothing.
COPY Cargo.toml Cargo.lock build.rs ./
COPY pod-library pod-library
COPY crates crates
COPY src src

ENV CARGO_INCREMENTAL=0
# The caches outlive the layer; the binary must be copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --package kitepool --bin kitepool \
    && cp target/dist/kitepool /kitepool \
    && /kitepool crd > /dev/null \
    && cp "$(crates/first/build)" /kitepool-first \
    && /kitepool-first -- true

# C library, CA bundle, no shell. Time zones are in the binary.
FROM gcr.io/distroless/cc-debian12:nonroot

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kitepool" \
      org.opencontainers.image.description="Keeps the right number of long-polling Buildkite agents running on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

COPY --from=build /kitepool /kitepool
# What agents' pods copy from here. Their nodes may have other processors than the controller's: build for all of them.
COPY --from=build /kitepool-first /kitepool-first

# `nonroot` as a number, since Kubernetes cannot tell from a name that it is not root.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/kitepool"]
CMD ["controller"]
