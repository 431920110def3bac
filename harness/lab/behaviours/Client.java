// A client of java.net.Socket, driven by harness.lab.behaviours.programs:
//   java Client PORT REQUEST-IN-HEX PATIENCE-IN-MS ADDRESS...
// For each address a line: `refused WHY` (no address to Java), `failed WHY`, or `connected SOURCE-PORT ANSWER-IN-HEX`.

import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.UnknownHostException;
import java.util.Locale;

public class Client {
    public static void main(String[] arguments) {
        int port = Integer.parseInt(arguments[0]);
        byte[] request = bytes(arguments[1]);
        int patience = Integer.parseInt(arguments[2]);
        for (int index = 3; index < arguments.length; index++) {
            System.out.println(ask(arguments[index], port, request, patience));
        }
    }

    private static String ask(String form, int port, byte[] request, int patience) {
        InetAddress address;
        try {
            address = InetAddress.getByName(form);
        } catch (UnknownHostException | IllegalArgumentException error) {
            return "refused " + error;
        }
        try (Socket socket = new Socket()) {
            socket.connect(new InetSocketAddress(address, port), patience);
            socket.setSoTimeout(patience);
            socket.getOutputStream().write(request);
            byte[] answer = socket.getInputStream().readAllBytes();
            return "connected " + socket.getLocalPort() + " " + hexadecimal(answer);
        } catch (Exception error) {
            return "failed " + error;
        }
    }

    private static byte[] bytes(String digits) {
        byte[] found = new byte[digits.length() / 2];
        for (int index = 0; index < found.length; index++) {
            found[index] = (byte) Integer.parseInt(digits.substring(2 * index, 2 * index + 2), 16);
        }
        return found;
    }

    private static String hexadecimal(byte[] data) {
        StringBuilder digits = new StringBuilder();
        for (byte one : data) {
            digits.append(String.format(Locale.ROOT, "%02x", one));
        }
        return digits.toString();
    }
}
