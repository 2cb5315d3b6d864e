FROM python:3.11-slim
COPY valkey-server /usr/local/libexec/valkey-server
# As in the real image, which is compiled so: other containers may connect without a password.
RUN printf '#!/bin/sh\nexec /usr/local/libexec/valkey-server --protected-mode no "$@"\n' > /usr/local/bin/valkey-server
COPY asks.py /usr/local/bin/valkey-cli
RUN sed -i '1i #!/usr/bin/env python3' /usr/local/bin/valkey-cli && chmod +x /usr/local/bin/valkey-*
WORKDIR /data
EXPOSE 6379
