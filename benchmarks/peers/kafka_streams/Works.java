import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.File;
import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.WindowStore;

/** The works in Kafka Streams: its DSL, RocksDB stores with changelog topics, one stream thread. */
public final class Works {
    private static final ObjectMapper MAPPER = new ObjectMapper();

    @JsonIgnoreProperties(ignoreUnknown = true)
    public static final class Click {
        public String user;
        public double amount;
        public long sent;
    }

    public static final class Total {
        public String user;
        public double total;
        public long sent;
    }

    public static final class Minute {
        public String user;
        public long start;
        public long count;
        public double sum;
    }

    private static final class Json<T> implements Serde<T> {
        private final ObjectReader reader;
        private final ObjectWriter writer;

        Json(Class<T> type) {
            reader = MAPPER.readerFor(type);
            writer = MAPPER.writerFor(type);
        }

        @Override
        public Serializer<T> serializer() {
            return (topic, value) -> {
                try {
                    return value == null ? null : writer.writeValueAsBytes(value);
                } catch (Exception error) {
                    throw new RuntimeException(error);
                }
            };
        }

        @Override
        public Deserializer<T> deserializer() {
            return (topic, bytes) -> {
                try {
                    return bytes == null ? null : reader.readValue(bytes);
                } catch (Exception error) {
                    throw new RuntimeException(error);
                }
            };
        }
    }

    private static long seen;
    private static long results;
    private static long beganNs;
    private static long endedNs;
    private static double beganS;
    private static double processorS;

    private static double processor() {
        var os = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        return os.getProcessCpuTime() / 1e9;
    }

    private static void record(long records) {
        if (seen++ == 0) {
            beganNs = System.nanoTime();
            beganS = System.currentTimeMillis() / 1000.0;
            processorS = processor();
        }
        if (seen == records) {
            stop();
        }
    }

    private static void stop() {
        endedNs = System.nanoTime();
        processorS = processor() - processorS;
    }

    public static void main(String[] arguments) throws Exception {
        Map<?, ?> job = MAPPER.readValue(new File(arguments[0]), Map.class);
        String work = (String) job.get("work");
        String topic = (String) job.get("topic");
        String output = (String) job.get("output");
        long records = ((Number) job.get("records")).longValue();
        long wanted = ((Number) job.get("results")).longValue();
        boolean exactly = job.get("guarantee").equals("exactly_once");

        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, output);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, job.get("bootstrap"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, job.get("folder"));
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
            exactly ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG,
            (long) (((Number) job.get("commit_s")).doubleValue() * 1000));
        if (work.equals("latency")) {
            // With a cache, results would wait for the next commit.
            settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        }

        CountDownLatch done = new CountDownLatch(1);
        Map<String, Object> answer = new HashMap<>();
        Serde<Click> clickSerde = new Json<>(Click.class);
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, Click> clicks = builder.stream(topic, Consumed.with(Serdes.String(), clickSerde));
        long[] map = new long[2];
        if (work.equals("map")) {
            clicks.peek((key, click) -> record(records))
                .filter((key, click) -> click.amount >= 500)
                .mapValues(click -> Math.round(click.amount * 100))
                .foreach((key, cents) -> {
                    map[0]++;
                    map[1] += cents;
                });
        } else if (work.equals("windows")) {
            clicks.peek((key, click) -> record(records))
                .groupByKey(Grouped.with(Serdes.String(), clickSerde))
                .windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofMinutes(1)))
                .aggregate(Minute::new, (user, click, minute) -> {
                    minute.user = user;
                    minute.count++;
                    minute.sum += click.amount;
                    return minute;
                // The default retention is a minute: a RocksDB would be opened and dropped for every 60 records.
                }, Materialized.<String, Minute, WindowStore<Bytes, byte[]>>with(Serdes.String(), new Json<>(Minute.class))
                    .withRetention(Duration.ofDays(2)))
                .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()))
                .toStream((window, minute) -> {
                    minute.start = window.window().start();
                    return window.key();
                })
                .peek((user, minute) -> results++)
                .to(output, Produced.with(Serdes.String(), new Json<>(Minute.class)));
        } else {
            KStream<String, Total> totals = clicks
                .groupByKey(Grouped.with(Serdes.String(), clickSerde))
                .aggregate(Total::new, (user, click, total) -> {
                    if (!work.equals("latency")) {
                        record(records);
                    }
                    total.user = user;
                    total.total += click.amount;
                    total.sent = click.sent;
                    return total;
                }, Materialized.with(Serdes.String(), new Json<>(Total.class)))
                .toStream();
            if (work.equals("latency")) {
                totals.to(output, Produced.with(Serdes.String(), new Json<>(Total.class)));
            } else {
                totals.foreach((user, total) -> {
                    synchronized (answer) {
                        answer.put(user, total.total);
                    }
                });
            }
        }
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            done.countDown();
            return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse
                .SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(done::countDown));
        streams.start();
        while (!done.await(50, TimeUnit.MILLISECONDS)) {
            if (!work.equals("latency") && seen >= records && results >= wanted) {
                break;
            }
        }
        // Caches are flushed at close: what the table holds in the end is told only then.
        streams.close(Duration.ofSeconds(30));
        if (work.equals("map")) {
            answer.put("count", map[0]);
            answer.put("cents", map[1]);
        }
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("seconds", (endedNs - beganNs) / 1e9);
        report.put("processor_s", processorS);
        report.put("began_s", beganS);
        report.put("seen", seen);
        report.put("answer", answer);
        MAPPER.writeValue(new File((String) job.get("report")), report);
        System.exit(0);
    }
}
