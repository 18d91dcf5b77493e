// Servers and clients over each of Java's ways to use a socket: blocking, selectors, asynchronous channels.
//
//     java Echo.java serve WAY PORT        an echo server, until its standard input ends
//     java Echo.java use WAY PORT ROUNDS   checks what comes back; prints a line that does not depend on the lane
//     java Echo.java closing PORT ROUNDS   ends blocked calls by closing, by shutting down, by interrupting, by time
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketException;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.nio.channels.AsynchronousCloseException;
import java.nio.channels.AsynchronousServerSocketChannel;
import java.nio.channels.AsynchronousSocketChannel;
import java.nio.channels.ClosedByInterruptException;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.CompletionHandler;
import java.nio.channels.FileChannel;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

public final class Echo {
    static final int[] SIZES = {1, 100, 3000, 65536, 300_000};

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[arguments[0].equals("closing") ? 1 : 2]);
        switch (arguments[0]) {
            case "serve" -> {
                switch (arguments[1]) {
                    case "blocking" -> serveBlocking(port);
                    case "selector" -> serveSelector(port);
                    case "asynchronous" -> serveAsynchronous(port);
                    default -> throw new IllegalArgumentException(arguments[1]);
                }
                while (System.in.read() >= 0) {
                }
                System.exit(0);
            }
            case "use" -> {
                int rounds = Integer.parseInt(arguments[3]);
                ExecutorService pool = Executors.newFixedThreadPool(6);
                List<Future<Long>> results = new ArrayList<>();
                for (int number = 0; number < 6; ++number) {
                    int seed = number;
                    results.add(pool.submit(() -> switch (arguments[1]) {
                        case "blocking" -> useBlocking(port, seed, rounds);
                        case "selector" -> useSelector(port, seed, rounds);
                        case "asynchronous" -> useAsynchronous(port, seed, rounds);
                        default -> throw new IllegalArgumentException(arguments[1]);
                    }));
                }
                long bytes = 0;
                for (Future<Long> result : results)
                    bytes += result.get(60, TimeUnit.SECONDS);
                System.out.println(arguments[1] + ": " + bytes + " bytes came back");
                System.exit(0);
            }
            case "closing" -> {
                closing(port, Integer.parseInt(arguments[2]));
                System.exit(0);
            }
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    static InetSocketAddress address(int port) {
        return new InetSocketAddress("127.0.0.1", port);
    }

    // --- servers ---

    static void serveBlocking(int port) throws IOException {
        ServerSocket server = new ServerSocket(port, 100, InetAddress.getByName("127.0.0.1"));
        start(() -> {
            while (true) {
                Socket socket = server.accept();
                start(() -> {
                    try (socket) {
                        socket.getInputStream().transferTo(socket.getOutputStream());
                    }
                    return null;
                });
            }
        });
    }

    static void serveSelector(int port) throws IOException {
        Selector selector = Selector.open();
        ServerSocketChannel server = ServerSocketChannel.open().bind(address(port));
        server.configureBlocking(false);
        server.register(selector, SelectionKey.OP_ACCEPT);
        start(() -> {
            while (true) {
                selector.select();
                for (SelectionKey key : selector.selectedKeys()) {
                    if (key.isAcceptable()) {
                        SocketChannel channel = server.accept();
                        channel.configureBlocking(false);
                        channel.register(selector, SelectionKey.OP_READ, ByteBuffer.allocateDirect(100_000));
                        continue;
                    }
                    SocketChannel channel = (SocketChannel) key.channel();
                    ByteBuffer buffer = (ByteBuffer) key.attachment();
                    boolean end;
                    try {
                        end = key.isReadable() && channel.read(buffer) < 0;
                        buffer.flip();
                        channel.write(buffer);
                        buffer.compact();
                    } catch (IOException problem) {  // the client closed with much still to come
                        channel.close();
                        continue;
                    }
                    if (end && buffer.position() == 0) {
                        channel.close();
                        continue;
                    }
                    // Interest changes all the time, as in every event loop.
                    key.interestOps((buffer.position() > 0 ? SelectionKey.OP_WRITE : 0)
                                    | (buffer.hasRemaining() && !end ? SelectionKey.OP_READ : 0));
                }
                selector.selectedKeys().clear();
            }
        });
    }

    static void serveAsynchronous(int port) throws IOException {
        AsynchronousServerSocketChannel server = AsynchronousServerSocketChannel.open().bind(address(port), 100);
        server.accept(null, new CompletionHandler<AsynchronousSocketChannel, Void>() {
            @Override
            public void completed(AsynchronousSocketChannel channel, Void nothing) {
                server.accept(null, this);
                ByteBuffer buffer = ByteBuffer.allocateDirect(100_000);
                channel.read(buffer, null, new CompletionHandler<Integer, Void>() {
                    private boolean writing;

                    @Override
                    public void completed(Integer count, Void same) {
                        if (count < 0) {
                            close(channel);
                            return;
                        }
                        if (!writing)
                            buffer.flip();
                        writing = buffer.hasRemaining();
                        if (writing) {
                            channel.write(buffer, null, this);
                        } else {
                            buffer.clear();
                            channel.read(buffer, null, this);
                        }
                    }

                    @Override
                    public void failed(Throwable problem, Void same) {
                        close(channel);
                    }
                });
            }

            @Override
            public void failed(Throwable problem, Void nothing) {
                problem.printStackTrace();
            }
        });
    }

    static void close(AsynchronousSocketChannel channel) {
        try {
            channel.close();
        } catch (IOException ignored) {
        }
    }

    // --- clients ---

    static byte[] content(int seed, int round) {
        byte[] data = new byte[SIZES[(seed + round) % SIZES.length]];
        new Random(seed * 1000L + round).nextBytes(data);
        return data;
    }

    static void same(byte[] sent, byte[] got) {
        if (!Arrays.equals(sent, got))
            throw new IllegalStateException("what came back differs, of " + sent.length + " bytes");
    }

    static long useBlocking(int port, int seed, int rounds) throws Exception {
        long bytes = 0;
        try (Socket socket = new Socket("127.0.0.1", port)) {
            socket.setTcpNoDelay(true);
            socket.setSoTimeout(30_000);
            DataInputStream in = new DataInputStream(socket.getInputStream());
            OutputStream out = new DataOutputStream(socket.getOutputStream());
            for (int round = 0; round < rounds; ++round) {
                byte[] sent = content(seed, round);
                Future<?> writer = start(() -> {
                    out.write(sent);
                    return null;
                });
                byte[] got = new byte[sent.length];
                in.readFully(got);
                writer.get();
                same(sent, got);
                bytes += got.length;
            }
            socket.shutdownOutput();
            if (in.read() != -1)
                throw new IllegalStateException("no end");
        }
        return bytes;
    }

    static long useSelector(int port, int seed, int rounds) throws Exception {
        long bytes = 0;
        try (Selector selector = Selector.open(); SocketChannel channel = SocketChannel.open()) {
            channel.configureBlocking(false);
            channel.connect(address(port));
            SelectionKey key = channel.register(selector, SelectionKey.OP_CONNECT);
            while (!channel.finishConnect())
                selector.select(100);
            // A file's bytes go out by transferTo, which is sendfile.
            Path file = Files.createTempFile("echo", "");
            for (int round = 0; round < rounds; ++round) {
                byte[] sent = content(seed, round);
                ByteBuffer got = ByteBuffer.allocate(sent.length);
                boolean fromFile = round % 3 == 2;
                if (fromFile)
                    Files.write(file, sent);
                ByteBuffer rest = ByteBuffer.wrap(sent);
                try (FileChannel source = fromFile ? FileChannel.open(file) : null) {
                    long at = 0;
                    while (got.hasRemaining()) {
                        if (fromFile)
                            at += at < sent.length ? source.transferTo(at, sent.length - at, channel) : 0;
                        else
                            at += channel.write(rest);
                        key.interestOps(SelectionKey.OP_READ | (at < sent.length ? SelectionKey.OP_WRITE : 0));
                        if (selector.select(30_000) == 0)
                            throw new IllegalStateException("nothing happens");
                        selector.selectedKeys().clear();
                        if (channel.read(got) < 0)
                            throw new IllegalStateException("an early end");
                    }
                }
                same(sent, got.array());
                bytes += sent.length;
            }
            Files.delete(file);
        }
        return bytes;
    }

    static long useAsynchronous(int port, int seed, int rounds) throws Exception {
        long bytes = 0;
        try (AsynchronousSocketChannel channel = AsynchronousSocketChannel.open()) {
            channel.connect(address(port)).get(10, TimeUnit.SECONDS);
            for (int round = 0; round < rounds; ++round) {
                byte[] sent = content(seed, round);
                ByteBuffer out = ByteBuffer.wrap(sent);
                ByteBuffer got = ByteBuffer.allocate(sent.length);
                Future<Integer> written = channel.write(out);
                while (got.hasRemaining()) {
                    if (channel.read(got).get(30, TimeUnit.SECONDS) < 0)
                        throw new IllegalStateException("an early end");
                    if (out.hasRemaining() && written.isDone())
                        written = channel.write(out);
                }
                written.get(30, TimeUnit.SECONDS);
                same(sent, got.array());
                bytes += sent.length;
            }
        }
        return bytes;
    }

    // --- blocked calls that something ends ---

    static void warm(InputStream in, OutputStream out) throws IOException {
        byte[] data = new byte[5000];
        for (int i = 0; i < 3; ++i) {
            out.write(data);
            in.readNBytes(data.length);
        }
    }

    /// Each prints how the blocked call ended; over and over, since there is a moment to be hit.
    static void closing(int port, int rounds) throws Exception {
        for (int round = 0; round < rounds; ++round) {
            say(round, "close under a read", () -> {
                Socket socket = new Socket("127.0.0.1", port);
                warm(socket.getInputStream(), socket.getOutputStream());
                return ends(() -> socket.getInputStream().read(), socket::close);
            });
            say(round, "close under a write", () -> {
                Socket socket = new Socket("127.0.0.1", port);
                warm(socket.getInputStream(), socket.getOutputStream());
                byte[] much = new byte[100_000_000];  // nobody reads what the echo server sends back
                return ends(() -> {
                    socket.getOutputStream().write(much);
                    return 0;
                }, socket::close);
            });
            say(round, "shutdown under a read", () -> {
                try (Socket socket = new Socket("127.0.0.1", port)) {
                    warm(socket.getInputStream(), socket.getOutputStream());
                    return ends(() -> socket.getInputStream().read(), socket::shutdownInput);
                }
            });
            say(round, "close under a channel's read", () -> {
                SocketChannel channel = SocketChannel.open(address(port));
                warm(channel.socket().getInputStream(), channel.socket().getOutputStream());
                return ends(() -> channel.read(ByteBuffer.allocate(10)), channel::close);
            });
            say(round, "interrupt of a channel's read", () -> {
                try (SocketChannel channel = SocketChannel.open(address(port))) {
                    warm(channel.socket().getInputStream(), channel.socket().getOutputStream());
                    AtomicReference<Thread> reader = new AtomicReference<>();
                    return ends(() -> {
                        reader.set(Thread.currentThread());
                        return channel.read(ByteBuffer.allocate(10));
                    }, () -> {
                        while (reader.get() == null)
                            Thread.onSpinWait();
                        reader.get().interrupt();
                    });
                }
            });
            say(round, "a time limit", () -> {
                try (Socket socket = new Socket("127.0.0.1", port)) {
                    warm(socket.getInputStream(), socket.getOutputStream());
                    socket.setSoTimeout(50);
                    return ends(() -> socket.getInputStream().read(), () -> { });
                }
            });
            say(round, "close under a select", () -> {
                Selector selector = Selector.open();
                SocketChannel channel = SocketChannel.open(address(port));
                warm(channel.socket().getInputStream(), channel.socket().getOutputStream());
                channel.configureBlocking(false);
                channel.register(selector, SelectionKey.OP_READ);
                String how = ends(() -> {  // how many keys it finds ready is a race of its own
                    selector.select();
                    return 0;
                }, () -> {
                    channel.close();
                    selector.wakeup();
                });
                selector.close();
                return how;
            });
            say(round, "close under an asynchronous read", () -> {
                AsynchronousSocketChannel channel = AsynchronousSocketChannel.open();
                channel.connect(address(port)).get();
                for (int i = 0; i < 3; ++i) {
                    channel.write(ByteBuffer.allocate(5000)).get();
                    ByteBuffer got = ByteBuffer.allocate(5000);
                    while (got.hasRemaining())
                        channel.read(got).get();
                }
                return ends(() -> channel.read(ByteBuffer.allocate(10)).get(), channel::close);
            });
        }
    }

    interface Action {
        void run() throws Exception;
    }

    /// The action came before the call that it should have ended: on a loaded machine a thread may stand still
    /// between the two.
    static final String MISSED = "missed";

    static String ends(Callable<Integer> blocked, Action action) throws Exception {
        CountDownLatch begun = new CountDownLatch(1);
        Future<String> result = start(() -> {
            begun.countDown();
            try {
                return "returned " + blocked.call();
            } catch (SocketTimeoutException problem) {
                return "timed out";
            } catch (AsynchronousCloseException problem) {
                return problem instanceof ClosedByInterruptException ? "interrupted" : "closed meanwhile";
            } catch (ClosedChannelException problem) {
                return MISSED;
            } catch (SocketException problem) {
                return "socket exception: " + problem.getMessage();
            } catch (java.util.concurrent.ExecutionException problem) {
                if (problem.getCause().getClass() == ClosedChannelException.class)
                    return MISSED;
                return "failed with " + problem.getCause().getClass().getSimpleName();
            }
        });
        begun.await();
        Thread.sleep(20);
        action.run();
        return result.get(20, TimeUnit.SECONDS);
    }

    static void say(int round, String what, Callable<String> test) throws Exception {
        String how = test.call();
        for (int attempt = 0; how.equals(MISSED) && attempt < 20; ++attempt)
            how = test.call();
        System.out.println(round + ": " + what + ": " + how);
    }

    static <T> Future<T> start(Callable<T> task) {
        java.util.concurrent.FutureTask<T> future = new java.util.concurrent.FutureTask<>(task);
        Thread thread = new Thread(future);
        thread.setDaemon(true);
        thread.start();
        return future;
    }
}
