import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import software.amazon.event.ruler.Machine;

/**
 * Reads lines like {"pattern": "…", "event": "…"}, both of them JSON as text, and answers each with a
 * line: "match", "no match", "invalid" or, where the library fails at the event, "error".
 */
public final class Judge {
    public static void main(String[] arguments) throws Exception {
        ObjectMapper mapper = new ObjectMapper();
        BufferedReader lines =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (PrintStream answers = new PrintStream(System.out, false, StandardCharsets.UTF_8)) {
            String pattern = null;
            Machine machine = null;
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                JsonNode pair = mapper.readTree(line);
                // Many events are held against one pattern, one after the other.
                if (!pair.get("pattern").asText().equals(pattern)) {
                    pattern = pair.get("pattern").asText();
                    machine = machine(pattern);
                }
                answers.println(machine == null ? "invalid" : verdict(machine, pair.get("event").asText()));
            }
        }
    }

    /** A machine with this pattern alone, or none where it is no pattern. */
    private static Machine machine(String pattern) {
        try {
            Machine machine = new Machine();
            machine.addRule("pattern", pattern);
            return machine;
        } catch (Exception | StackOverflowError notOne) {
            return null;
        }
    }

    private static String verdict(Machine machine, String event) {
        try {
            return machine.rulesForJSONEvent(event).isEmpty() ? "no match" : "match";
        } catch (Exception failed) {
            return "error";
        }
    }
}
