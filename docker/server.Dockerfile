# The server image: Triton with what the models of this project import. The repository is mounted, not copied.
# 24.12 is the release nearest to the embedded server (2.51) whose Python, 3.12, gdino_core can run on.
FROM nvcr.io/nvidia/tritonserver:24.12-py3

# The pins are those of pyproject.toml's server extra. The package itself is copied: its requires-python speaks of the
# embedded server's 3.11. Triton's Python backend reads the system's packages and ignores PYTHONPATH.
COPY pyproject.toml /tmp/pyproject.toml
RUN python3 -c "import tomllib; \
        project = tomllib.load(open('/tmp/pyproject.toml', 'rb'))['project']; \
        print(*project['optional-dependencies']['server'], sep='\n')" > /tmp/requirements.txt \
    && python3 -m pip install --no-cache-dir --break-system-packages --requirement /tmp/requirements.txt \
    && rm /tmp/pyproject.toml /tmp/requirements.txt
COPY gdino_core /usr/local/lib/python3.12/dist-packages/gdino_core

# As the embedded server does it: numpy has small products only to do.
ENV OPENBLAS_NUM_THREADS=1

USER 1000:1000
EXPOSE 8000 8001 8002
CMD ["tritonserver", \
     "--model-repository=/models", \
     "--model-control-mode=none", \
     "--disable-auto-complete-config", \
     "--strict-readiness=true", \
     "--exit-on-error=true"]
