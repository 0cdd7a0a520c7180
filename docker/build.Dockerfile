# The build image: gdino-build, from checkpoint to model repository, without Triton and without the demo's trainer.
# BUILD_IMAGE is CPU_BUILD_IMAGE or GPU_BUILD_IMAGE of versions.env.
ARG BUILD_IMAGE
FROM ${BUILD_IMAGE}

USER 0:0
RUN mkdir --parents /work/out \
    && chown --recursive 1000:1000 /work
USER 1000:1000
WORKDIR /work
# No home: the user is a number.
ENV PATH=/work/.venv/bin:$PATH \
    HOME=/work

# Dependencies change less often than sources. Of torch the CPU build is enough: see README.md beside this file. NVIDIA's
# image brings tensorrt, which the environment sees; its Python is newer than the embedded server's.
ARG PIP_INDEX_URL
COPY --chown=1000:1000 pyproject.toml README.md LICENSE ./
COPY --chown=1000:1000 gdino_core gdino_core
COPY --chown=1000:1000 build build
COPY --chown=1000:1000 clients clients
RUN python3 -m venv --system-site-packages .venv \
    && pip install --no-cache-dir torch==2.13.0 \
    && pip install --no-cache-dir --ignore-requires-python --editable '.[build]'
COPY --chown=1000:1000 model_repository model_repository

VOLUME /work/out
ENTRYPOINT ["gdino-build"]
CMD ["--help"]
