# The page of `fewseg serve`, on a CPU and without a network:
#   docker build -t fewseg .
#   docker run --rm -p 127.0.0.1:8017:8017 -e FEWSEG_PASSWORD=... fewseg
FROM python:3.12-slim
WORKDIR /fewseg
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir '.[serve,offline]'
RUN useradd --create-home fewseg
USER fewseg
EXPOSE 8017
CMD ["fewseg", "serve", "--host", "0.0.0.0"]
