FROM python:3.11-slim
COPY valkey-server /usr/local/bin/valkey-server
COPY asks.py /usr/local/bin/valkey-cli
RUN sed -i '1i #!/usr/bin/env python3' /usr/local/bin/valkey-cli && chmod +x /usr/local/bin/valkey-*
WORKDIR /data
EXPOSE 6379
