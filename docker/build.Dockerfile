# The build image: gdino-build, from checkpoint to model repository, without Triton and without the demo's trainer.
FROM python:3.11.13-slim-bookworm

RUN useradd --uid 1000 --create-home builder \
    && mkdir --parents /work/out \
    && chown --recursive builder /work
USER 1000
WORKDIR /work
ENV PATH=/work/.venv/bin:$PATH

# Dependencies change less often than sources. Of torch the CPU build is enough: see README.md beside this file.
ARG PIP_INDEX_URL
COPY --chown=1000 pyproject.toml README.md LICENSE ./
COPY --chown=1000 gdino_core gdino_core
COPY --chown=1000 build build
COPY --chown=1000 clients clients
RUN python -m venv .venv \
    && pip install --no-cache-dir torch==2.13.0 \
    && pip install --no-cache-dir --editable '.[build]'
COPY --chown=1000 model_repository model_repository

VOLUME /work/out
ENTRYPOINT ["gdino-build"]
CMD ["--help"]
