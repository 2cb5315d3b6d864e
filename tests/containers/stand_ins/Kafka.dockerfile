FROM python:3.11-slim
COPY java /opt/java
COPY jars /opt/kafka/libs
COPY modules /opt/kafka/modules
COPY start_kafka.py /opt/kafka/
COPY asks.py /opt/kafka/bin/kafka-topics.sh
RUN sed -i '1i #!/usr/bin/env python3' /opt/kafka/bin/kafka-topics.sh && chmod +x /opt/kafka/bin/kafka-topics.sh && mkdir -p /var/lib/kafka/data
CMD ["python3", "/opt/kafka/start_kafka.py"]
