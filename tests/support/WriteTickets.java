import io.apicurio.registry.serde.SerdeConfig;
import io.apicurio.registry.serde.avro.AvroKafkaSerializer;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** Writes tickets to a topic as Apicurio's serializer does: bootstrap servers, registry, topic, then their bodies. */
public final class WriteTickets {
    private static final Schema SCHEMA = new Schema.Parser().parse(
        "{\"type\": \"record\", \"name\": \"Ticket\", \"namespace\": \"shop\", \"fields\": ["
            + "{\"name\": \"number\", \"type\": \"long\"},"
            + "{\"name\": \"content\", \"type\": {\"type\": \"record\", \"name\": \"Content\", \"fields\": ["
            + "{\"name\": \"body\", \"type\": \"string\"}]}}]}");

    public static void main(String[] arguments) throws Exception {
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", arguments[0],
            "key.serializer", StringSerializer.class.getName(),
            "value.serializer", AvroKafkaSerializer.class.getName(),
            SerdeConfig.REGISTRY_URL, arguments[1],
            SerdeConfig.AUTO_REGISTER_ARTIFACT, true,
            SerdeConfig.ENABLE_CONFLUENT_ID_HANDLER, true,
            SerdeConfig.ENABLE_HEADERS, false,
            SerdeConfig.USE_ID, "contentId");
        try (KafkaProducer<String, GenericRecord> producer = new KafkaProducer<>(settings)) {
            for (int at = 3; at < arguments.length; at++) {
                producer.send(new ProducerRecord<>(arguments[2], ticket(at - 2, arguments[at]))).get();
            }
        }
    }

    private static GenericRecord ticket(long number, String body) {
        GenericRecord content = new GenericData.Record(SCHEMA.getField("content").schema());
        content.put("body", body);
        GenericRecord ticket = new GenericData.Record(SCHEMA);
        ticket.put("number", number);
        ticket.put("content", content);
        return ticket;
    }
}
