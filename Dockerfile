# sambench with the environment of requirements.lock.
#
#     docker build --tag sambench .
#     docker run --rm --volume "$PWD/results:/sambench/results" --user "$(id -u):$(id -g)" sambench     # embedded default
#     docker run --rm --volume "$PWD:/sambench" --user "$(id -u):$(id -g)" sambench --configfile mine.yaml
#
# The second line runs a checkout with its own configuration, weights and data. Arguments are those of snakemake.
# It is made for CPUs. The lock's torch brings its CUDA libraries along, about half of the image.
FROM python:3.11-slim

# g++: the runtimes `compile` and `fast` translate networks at run time. git: results carry the commit of a checkout.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /sambench

# Apart from the source, so that an edit does not install everything again. The lock is complete: --no-deps, because lvis
# asks for an OpenCV that the lock leaves out (pyproject.toml, [tool.uv]).
COPY requirements.lock ./
RUN python -m pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock

COPY . ./
# Any user may write where runs write, so that `--user` works and results belong to whoever started the container.
RUN python -m pip install --no-cache-dir --no-deps --editable . \
    && useradd --create-home --uid 1000 sambench \
    && mkdir results weights .snakemake \
    && chmod 0777 /home/sambench /sambench results weights .snakemake

# Under a user id of the host there is no account: caches and torch still ask for a home and a name.
ENV HOME=/home/sambench USER=sambench
USER 1000
ENTRYPOINT ["snakemake"]
