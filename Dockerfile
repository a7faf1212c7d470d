# Two images: `docker build --target api .` has no torch in it, `docker build --target worker .` trains, on a GPU where there is one.
# Everything installed is pinned with its hash in the lock files that `make lock` writes.

FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# setuptools, which builds the wheel, comes from the lock like everything else
COPY requirements.lock ./
RUN awk '/^[^ ]/ { wanted = /^setuptools==/ } wanted' requirements.lock > setuptools.lock \
    && pip install --require-hashes -r setuptools.lock
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY ml ml
COPY workers workers
COPY migrations migrations
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.12-slim AS api-environment
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv --without-pip /venv
COPY requirements-api.lock ./
RUN pip --python /venv/bin/python install --require-hashes -r requirements-api.lock
COPY --from=build /wheels /wheels
RUN pip --python /venv/bin/python install --no-deps --no-index /wheels/*.whl

FROM python:3.12-slim AS worker-environment
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv --without-pip /venv
COPY requirements-worker.lock ./
RUN pip --python /venv/bin/python install --require-hashes -r requirements-worker.lock
COPY --from=build /wheels /wheels
RUN pip --python /venv/bin/python install --no-deps --no-index /wheels/*.whl

FROM python:3.12-slim AS runtime
# the folders are the user's, and so are the named volumes that Docker makes from them
RUN useradd --uid 10001 --create-home sweetspot \
    && install -d -o sweetspot -g sweetspot /var/lib/sweetspot /var/lib/sweetspot/artifacts /var/lib/sweetspot/datasets
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1 SWEETSPOT_DATA_DIR=/var/lib/sweetspot
WORKDIR /var/lib/sweetspot
USER 10001
STOPSIGNAL SIGTERM

FROM runtime AS worker
COPY --from=worker-environment /venv /venv
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
CMD ["python", "-m", "workers"]

FROM runtime AS api
COPY --from=api-environment /venv /venv
EXPOSE 8000
# past any proxy that the environment names: the loopback is not its business
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["sweetspot", "api", "--host", "0.0.0.0", "--port", "8000"]
