# The server image: Triton with what the models of this project import. The repository is mounted, not copied.
# SERVER_IMAGE is in versions.env.
ARG SERVER_IMAGE
FROM ${SERVER_IMAGE}

# The pins are those of pyproject.toml's server extra. The package itself is copied: its requires-python speaks of the
# embedded server's 3.11. Triton's Python backend reads the system's packages and ignores PYTHONPATH.
COPY pyproject.toml docker/pins.py /tmp/
RUN python3 /tmp/pins.py /tmp/pyproject.toml server > /tmp/requirements.txt \
    && python3 -m pip install --no-cache-dir --break-system-packages --requirement /tmp/requirements.txt \
    && rm /tmp/pyproject.toml /tmp/pins.py /tmp/requirements.txt
COPY gdino_core /usr/local/lib/python3.12/dist-packages/gdino_core

# As the embedded server does it: numpy has small products only to do. Nothing writes beside its sources.
ENV OPENBLAS_NUM_THREADS=1 \
    PYTHONDONTWRITEBYTECODE=1

USER 1000:1000
EXPOSE 8001 8002

# Triton opens its ports when all models are loaded and warmed up. It calls itself ready after a model's process has
# died: this looks for the process too.
HEALTHCHECK --interval=10s --timeout=8s --start-period=10m --retries=3 \
    CMD ["python3", "-m", "gdino_core.liveness", "--metrics-url", "http://127.0.0.1:8002/metrics"]

# Plans of another TensorRT, or for another GPU, are refused with the command that rebuilds them.
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "python3", "-m", "gdino_core.plan_check"]
CMD ["tritonserver", \
     "--model-repository=/models", \
     "--model-control-mode=none", \
     "--disable-auto-complete-config", \
     "--strict-readiness=true", \
     "--exit-on-error=true", \
     "--exit-timeout-secs=10", \
     "--allow-http=false", \
     "--grpc-address=0.0.0.0", \
     "--metrics-address=0.0.0.0", \
     "--cache-config=local,size=67108864"]
