# The dashboard: the artifact that this project's pipeline builds once.
#
# The same source on the same base gives the same digest, whenever and wherever it is built: every
# file has one time, bytecode depends on the source alone, and the image is the base and one layer.
# No syntax line: it would make every build fetch a frontend.

ARG PYTHON_IMAGE=docker.io/library/python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
# Python is /usr/local/bin/python3 in the public image and /usr/bin/python3 in Debian's; an
# environment without a pip of its own is made by both, and filled by the pip of the base.
RUN python3 -m venv --without-pip /app/venv
COPY src/buildonce/dashboard/requirements.txt src/buildonce/dashboard/bytecode.py /tmp/
RUN python3 -m pip --python /app/venv/bin/python --disable-pip-version-check install \
        --no-cache-dir --no-compile --no-deps --only-binary :all: --require-hashes \
        --requirement /tmp/requirements.txt
RUN /app/venv/bin/python -B /tmp/bytecode.py /app/bytecode \
        anyio._backends._asyncio anyio.to_thread hashlib jinja2 json sqlite3 \
        starlette.applications starlette.routing uvicorn uvicorn.lifespan.off \
        uvicorn.loops.asyncio uvicorn.protocols.http.h11_impl

COPY src/buildonce/__init__.py src/buildonce/errors.py /app/source/buildonce/
COPY src/buildonce/ledger /app/source/buildonce/ledger
COPY src/buildonce/dashboard /app/source/buildonce/dashboard
ARG SOURCE_DATE_EPOCH=0
RUN set -eu; \
    PYTHONPATH=/app/source /app/venv/bin/python -B /tmp/bytecode.py /app/bytecode \
        buildonce.dashboard.app buildonce.dashboard.__main__; \
    find /app -name __pycache__ -prune -exec rm -rf {} +; \
    chmod -R u=rwX,go=rX /app; \
    mkdir /image; \
    mv /app /image/app; \
    find /image -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +

FROM ${PYTHON_IMAGE}
COPY --from=builder /image/ /
ENV PYTHONPATH=/app/source \
    PYTHONPYCACHEPREFIX=/app/bytecode \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PORT=8080
EXPOSE 8080
# A number, so that an orchestrator can tell without the image's passwd that it is not root.
USER 10001:10001
STOPSIGNAL SIGTERM
# For docker; the OCI format has no such field, and orchestrators ask /healthz themselves.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 \
    CMD ["/app/venv/bin/python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/healthz', timeout=4)"]
CMD ["/app/venv/bin/python", "-m", "buildonce.dashboard"]
