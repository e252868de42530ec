import com.google.protobuf.DescriptorProtos.DescriptorProto;
import com.google.protobuf.DescriptorProtos.FieldDescriptorProto;
import com.google.protobuf.DescriptorProtos.FieldDescriptorProto.Type;
import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.Descriptors.Descriptor;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.DynamicMessage;
import io.apicurio.registry.serde.SerdeConfig;
import io.apicurio.registry.serde.avro.AvroKafkaSerializer;
import io.apicurio.registry.serde.jsonschema.JsonSchemaKafkaSerializer;
import io.apicurio.registry.serde.protobuf.ProtobufKafkaSerializer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Writes tickets as Apicurio's serializers do: format, more settings, bootstrap servers, registry, topic, bodies. */
public final class WriteTickets {
    private static final Schema AVRO = new Schema.Parser().parse(
        "{\"type\": \"record\", \"name\": \"Ticket\", \"namespace\": \"shop\", \"fields\": ["
            + "{\"name\": \"number\", \"type\": \"long\"},"
            + "{\"name\": \"content\", \"type\": {\"type\": \"record\", \"name\": \"Content\", \"fields\": ["
            + "{\"name\": \"body\", \"type\": \"string\"}]}}]}");
    private static final String JSON_SCHEMA =
        "{\"$schema\": \"http://json-schema.org/draft-07/schema#\", \"title\": \"Ticket\", \"type\": \"object\","
            + " \"properties\": {\"number\": {\"type\": \"integer\"}, \"content\": {\"type\": \"object\"}}}";

    private interface Tickets {
        Object make(long number, String body);
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, Object> settings = new HashMap<>(Map.of(
            "bootstrap.servers", arguments[2],
            "key.serializer", StringSerializer.class.getName(),
            "value.serializer", serializer(arguments[0]).getName(),
            SerdeConfig.REGISTRY_URL, arguments[3],
            SerdeConfig.AUTO_REGISTER_ARTIFACT, true,
            SerdeConfig.ENABLE_CONFLUENT_ID_HANDLER, true,
            SerdeConfig.ENABLE_HEADERS, false,
            SerdeConfig.USE_ID, "contentId"));
        for (String setting : arguments[1].isEmpty() ? new String[0] : arguments[1].split(",")) {
            String[] parts = setting.split("=");
            settings.put(parts[0], parts[1]);
        }
        if (arguments[0].equals("json_schema")) {
            settings.put(SerdeConfig.SCHEMA_LOCATION, "ticket.schema.json");
            Path folder = Path.of(WriteTickets.class.getProtectionDomain().getCodeSource().getLocation().toURI());
            Files.writeString(folder.resolve("ticket.schema.json"), JSON_SCHEMA);
        }
        Tickets tickets = tickets(arguments[0]);
        try (KafkaProducer<String, Object> producer = new KafkaProducer<>(settings)) {
            for (int at = 5; at < arguments.length; at++) {
                Object ticket = tickets.make(at - 4, arguments[at]);
                producer.send(new ProducerRecord<>(arguments[4], ticket)).get();
            }
        }
    }

    @SuppressWarnings("rawtypes")
    private static Class<? extends Serializer> serializer(String format) {
        return switch (format) {
            case "avro" -> AvroKafkaSerializer.class;
            case "json_schema" -> JsonSchemaKafkaSerializer.class;
            default -> ProtobufKafkaSerializer.class;
        };
    }

    private static Tickets tickets(String format) throws Exception {
        return switch (format) {
            case "avro" -> WriteTickets::avro;
            case "json_schema" -> (number, body) -> Map.of("number", number, "content", Map.of("body", body));
            default -> protobuf();
        };
    }

    private static GenericRecord avro(long number, String body) {
        GenericRecord content = new GenericData.Record(AVRO.getField("content").schema());
        content.put("body", body);
        GenericRecord ticket = new GenericData.Record(AVRO);
        ticket.put("number", number);
        ticket.put("content", content);
        return ticket;
    }

    /** The second message of its file, and its content a message within it. */
    private static Tickets protobuf() throws Exception {
        FileDescriptorProto file = FileDescriptorProto.newBuilder().setName("ticket.proto").setPackage("shop")
            .setSyntax("proto3")
            .addMessageType(DescriptorProto.newBuilder().setName("Ignored"))
            .addMessageType(DescriptorProto.newBuilder().setName("Ticket")
                .addNestedType(DescriptorProto.newBuilder().setName("Content").addField(field("body", 1, Type.TYPE_STRING)))
                .addField(field("number", 1, Type.TYPE_INT64))
                .addField(field("content", 2, Type.TYPE_MESSAGE).setTypeName(".shop.Ticket.Content")))
            .build();
        Descriptor ticket = FileDescriptor.buildFrom(file, new FileDescriptor[0]).findMessageTypeByName("Ticket");
        Descriptor content = ticket.findNestedTypeByName("Content");
        return (number, body) -> DynamicMessage.newBuilder(ticket)
            .setField(ticket.findFieldByName("number"), number)
            .setField(ticket.findFieldByName("content"), DynamicMessage.newBuilder(content)
                .setField(content.findFieldByName("body"), body).build())
            .build();
    }

    private static FieldDescriptorProto.Builder field(String name, int number, Type type) {
        return FieldDescriptorProto.newBuilder().setName(name).setNumber(number).setType(type)
            .setLabel(FieldDescriptorProto.Label.LABEL_OPTIONAL);
    }
}
