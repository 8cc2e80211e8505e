# Trivium on a CPU:  docker build -t trivium .
#                    docker run --rm -it -v "$PWD/runs:/work/runs" trivium quickstart
#                    docker run --rm -p 8600:8600 -v "$PWD/runs:/work/runs" trivium serve runs/quickstart/ppo --host 0.0.0.0
FROM python:3.13-slim
RUN pip install --no-cache-dir torch==2.13.0+cpu --extra-index-url https://download.pytorch.org/whl/cpu
COPY . /src
RUN pip install --no-cache-dir "/src[annotate,corpus,export,lessons,serve]" && rm -rf /src \
    && useradd --create-home trivium && mkdir -p /work/runs && chown -R trivium /work
USER trivium
WORKDIR /work
ENTRYPOINT ["trivium"]
CMD ["--help"]
