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
# image brings tensorrt, which the environment sees; its Python is newer than the embedded server's, which the package
# asks for. pip, told to ignore that, does so for dependencies too, and takes some that do not run: so they come first.
ARG PIP_INDEX_URL
COPY --chown=1000:1000 pyproject.toml README.md LICENSE docker/pins.py ./
RUN python3 -m venv --system-site-packages .venv \
    && python3 pins.py pyproject.toml server build > out/requirements.txt \
    && pip install --no-cache-dir --requirement out/requirements.txt \
    && rm out/requirements.txt
COPY --chown=1000:1000 gdino_core gdino_core
COPY --chown=1000:1000 build build
COPY --chown=1000:1000 clients clients
RUN pip install --no-cache-dir --no-deps --ignore-requires-python --editable .
COPY --chown=1000:1000 model_repository model_repository

VOLUME /work/out
ENTRYPOINT ["gdino-build"]
CMD ["--help"]
