import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Publishes the purchases of a CSV file with Apache Kafka's client: java Publisher localhost:9092 bought purchases.csv
 *
 * <p>A send that fails may be repeated: an event with the same id is counted once.
 */
public final class Publisher {
    public static void main(String[] arguments) throws Exception {
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", arguments[0],
            "key.serializer", StringSerializer.class,
            "value.serializer", StringSerializer.class,
            "linger.ms", 5);
        List<String> lines = Files.readAllLines(Path.of(arguments[2]));
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings)) {
            for (String line : lines.subList(1, lines.size())) {
                String[] cell = line.split(",");
                String event = "{\"order\":%s,\"at\":%s,\"customer\":%s,\"cds\":%s,\"dollars\":%s}"
                    .formatted(quoted(cell[0]), quoted(cell[1]), quoted(cell[2]), cell[3], cell[4]);
                sent.add(producer.send(new ProducerRecord<>(arguments[1], cell[2], event)));
            }
            for (Future<RecordMetadata> each : sent) {
                each.get(); // throws when the event was not stored
            }
        }
    }

    private static String quoted(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }
}
