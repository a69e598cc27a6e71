//! `hookline pub` and `hookline sub` beside mosquitto's own clients, on mosquitto's own broker.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::thread;

use tempfile::TempDir;

/// Debian's broker, with two doors: one for everybody, where only `open/#` may be used, and one that lets nobody in.
struct Mosquitto {
    child: Child,
    port: u16,
    closed_port: u16,
    _folder: TempDir,
}

impl Mosquitto {
    /// `None` where it is not installed, which the test says by name.
    fn start(test: &str) -> Option<Self> {
        if Command::new("mosquitto").arg("-h").output().is_err() {
            eprintln!("skipped: {test}: mosquitto is not installed (apt-get install mosquitto mosquitto-clients)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let [port, closed_port] = free_ports();
        std::fs::write(path("acl"), "topic readwrite open/#\n").unwrap();
        let configuration = format!(
            "per_listener_settings true\nuser root\nmax_queued_messages 0\nlistener {port} 127.0.0.1\nallow_anonymous true\nacl_file {}\n\
             listener {closed_port} 127.0.0.1\nallow_anonymous false\n",
            path("acl").display()
        );
        std::fs::write(path("conf"), configuration).unwrap();
        let mut child = Command::new("mosquitto")
            .arg("-c")
            .arg(path("conf"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let mut said = BufReader::new(stderr).lines();
        let line = said.find(|line| line.as_ref().is_ok_and(|line| line.ends_with(" running")));
        assert!(line.is_some(), "mosquitto did not start");
        thread::spawn(move || said.for_each(drop));
        Some(Self {
            child,
            port,
            closed_port,
            _folder: folder,
        })
    }

    fn hookline(&self, arguments: &str) -> Output {
        hookline(self.port, arguments, b"")
    }

    /// mosquitto's own client.
    fn theirs(&self, program: &str, arguments: &str) -> Output {
        finish(
            Command::new(program)
                .args(["-p", &self.port.to_string()])
                .args(words(arguments)),
            b"",
        )
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_ports() -> [u16; 2] {
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.each_ref().map(|listener| listener.local_addr().unwrap().port())
}

/// Splits at spaces; `_` stands for a space within an argument.
fn words(arguments: &str) -> Vec<String> {
    arguments
        .split_whitespace()
        .map(|word| word.replace('_', " "))
        .collect()
}

fn command(port: u16, arguments: &str) -> Command {
    let mut words = words(arguments).into_iter();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookline"));
    command.args(words.next()).args(["-p", &port.to_string()]).args(words);
    command
}

fn hookline(port: u16, arguments: &str, stdin: &[u8]) -> Output {
    finish(&mut command(port, arguments), stdin)
}

fn finish(command: &mut Command, stdin: &[u8]) -> Output {
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = stdin.to_vec();
    let writer = thread::spawn(move || {
        // Who reads no input closes it.
        let _ = input.write_all(&bytes);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// What went to stdout, of a command that must have succeeded.
fn printed(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Exit status and what went to stderr.
fn failed(output: &Output) -> (Option<i32>, String) {
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// A `hookline sub` that has its subscription.
fn subscribed(port: u16, arguments: &str) -> Child {
    let mut command = command(port, &format!("sub -d {arguments}"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    wait_for(&mut said, "received SUBACK");
    thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    child
}

fn wait_for(said: &mut BufReader<ChildStderr>, beginning: &str) {
    let mut all = String::new();
    let mut at = 0;
    while said.read_line(&mut all).unwrap() > 0 {
        if all[at..].starts_with(beginning) {
            return;
        }
        at = all.len();
    }
    panic!("never said {beginning}:\n{all}");
}

#[test]
fn every_version_and_qos_reaches_mosquittos_clients_and_back() {
    let Some(broker) = Mosquitto::start("every_version_and_qos_reaches_mosquittos_clients_and_back") else {
        return;
    };
    for version in ["311", "5"] {
        let theirs = if version == "5" { "mqttv5" } else { "mqttv311" };
        for qos in 0..3 {
            let topic = format!("open/{version}/{qos}");
            printed(&broker.hookline(&format!("pub -V {version} -q {qos} -r -t {topic} -m 21_°C")));
            let format = "-F %t|%q|%r|%p";
            let got = broker.theirs(
                "mosquitto_sub",
                &format!("-V {theirs} -q 2 -t {topic} -C 1 -W 20 {format}"),
            );
            assert_eq!(printed(&got), format!("{topic}|{qos}|1|21 °C\n"), "ours to theirs");

            printed(&broker.theirs("mosquitto_pub", &format!("-V {theirs} -q {qos} -r -t {topic} -m back")));
            let got = broker.hookline(&format!("sub -V {version} -q 2 -t {topic} -C 1 -W 20 {format}"));
            assert_eq!(printed(&got), format!("{topic}|{qos}|1|back\n"), "theirs to ours");
        }
    }
}

#[test]
fn sub_prints_byte_for_byte_what_mosquitto_sub_prints() {
    let Some(broker) = Mosquitto::start("sub_prints_byte_for_byte_what_mosquitto_sub_prints") else {
        return;
    };
    let properties = "-D publish content-type text/plain -D publish user-property a b -D publish user-property c d_e \
                      -D publish response-topic back -D publish correlation-data 42 \
                      -D publish payload-format-indicator 1";
    printed(&broker.hookline(&format!("pub -V 5 -q 1 -r -t open/a -m 21_°C {properties}")));
    for flags in [
        "",
        "-v",
        "-N",
        "-v -N",
        "-F %t|%p|%q|%r|%m|%l",
        "-F %x|%X|100%%",
        "-F %p\\t%t\\\\\\n -N",
        "-F %C|%P|%R|%D|%F",
    ] {
        let arguments = format!("-V mqttv5 -q 1 -t open/a -C 1 -W 20 {flags}");
        let (ours, theirs) = (
            broker.hookline(&format!("sub {arguments}")),
            broker.theirs("mosquitto_sub", &arguments),
        );
        assert_eq!(printed(&ours), printed(&theirs), "{flags}");
        assert!(!ours.stdout.is_empty(), "{flags}");
    }
}

#[test]
fn sub_acknowledges_what_it_printed_and_nothing_else() {
    let Some(broker) = Mosquitto::start("sub_acknowledges_what_it_printed_and_nothing_else") else {
        return;
    };
    for version in ["311", "5"] {
        for qos in [1, 2] {
            let sub = format!("sub -V {version} -c -i app{version}{qos} -q {qos} -t open/queue");
            printed(&broker.hookline(&format!("{sub} -E")));
            let lines = hookline(
                broker.port,
                &format!("pub -V {version} -q {qos} -t open/queue -l"),
                b"1\n2\n3\n4\n5\n",
            );
            printed(&lines);
            assert_eq!(
                printed(&broker.hookline(&format!("{sub} -C 2 -W 20"))),
                "1\n2\n",
                "{version} {qos}"
            );
            assert_eq!(
                printed(&broker.hookline(&format!("{sub} -C 3 -W 20"))),
                "3\n4\n5\n",
                "{version} {qos}"
            );
            let (status, said) = failed(&broker.hookline(&format!("{sub} -W 1")));
            assert_eq!(
                (status, said.as_str()),
                (Some(27), "hookline: timed out after 1 s\n"),
                "{version} {qos}"
            );
        }
    }
}

#[test]
fn thousands_of_lines_arrive_in_order_through_the_brokers_window() {
    let Some(broker) = Mosquitto::start("thousands_of_lines_arrive_in_order_through_the_brokers_window") else {
        return;
    };
    let lines: String = (0..3000).map(|line| format!("{line}\n")).collect();
    for (version, qos) in [("311", 1), ("311", 2), ("5", 1), ("5", 2), ("5", 0)] {
        let sub = subscribed(
            broker.port,
            &format!("-V {version} -q {qos} -t open/lines -C 3000 -W 60"),
        );
        printed(&hookline(
            broker.port,
            &format!("pub -V {version} -q {qos} -t open/lines -l"),
            lines.as_bytes(),
        ));
        assert_eq!(printed(&sub.wait_with_output().unwrap()), lines, "{version} {qos}");
    }
}

#[test]
fn a_payload_comes_from_a_file_standard_input_or_nowhere_unchanged() {
    let Some(broker) = Mosquitto::start("a_payload_comes_from_a_file_standard_input_or_nowhere_unchanged") else {
        return;
    };
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    for version in ["311", "5"] {
        for source in [format!("-f {}", file.path().display()), "-s".to_owned()] {
            let sub = subscribed(broker.port, &format!("-V {version} -q 1 -t open/big -C 1 -N -W 20"));
            printed(&hookline(
                broker.port,
                &format!("pub -V {version} -q 1 -t open/big {source}"),
                &bytes,
            ));
            let output = sub.wait_with_output().unwrap();
            assert!(output.status.success() && output.stdout == bytes, "{version} {source}");
        }
        let sub = subscribed(broker.port, &format!("-V {version} -t open/empty -C 1 -v -W 20"));
        printed(&broker.hookline(&format!("pub -V {version} -t open/empty -n")));
        assert_eq!(printed(&sub.wait_with_output().unwrap()), "open/empty (null)\n");
    }
    let (status, said) = failed(&broker.hookline("pub -t open/big -f /nowhere/x"));
    assert_eq!(
        (status, said.as_str()),
        (
            Some(1),
            "hookline: /nowhere/x: No such file or directory (os error 2)\n"
        )
    );
}

#[test]
fn what_the_broker_refuses_is_a_failure_with_its_reason() {
    let Some(broker) = Mosquitto::start("what_the_broker_refuses_is_a_failure_with_its_reason") else {
        return;
    };
    let Mosquitto { port, closed_port, .. } = broker;
    for (port, arguments, expected) in [
        (
            port,
            "pub -V 5 -q 1 -t secret -m x",
            "the broker refused the message to secret: not authorized".to_owned(),
        ),
        (
            port,
            "pub -V 5 -q 2 -t secret -m x",
            "the broker refused the message to secret: not authorized".to_owned(),
        ),
        (
            closed_port,
            "pub -t t -m x",
            format!("localhost:{closed_port} refused the connection: not authorized"),
        ),
        (
            closed_port,
            "sub -t t",
            format!("localhost:{closed_port} refused the connection: not authorized"),
        ),
        (
            closed_port,
            "sub -V 5 -t t",
            format!("localhost:{closed_port} refused the connection: not authorized"),
        ),
    ] {
        let output = hookline(port, arguments, b"");
        assert_eq!(
            failed(&output),
            (Some(1), format!("hookline: {expected}\n")),
            "{arguments}"
        );
    }
    let [nobody, _] = free_ports();
    for arguments in ["pub -t t -m x", "pub -V 5 -t t -m x", "sub -t t", "sub -V 5 -t t"] {
        let (status, said) = failed(&hookline(nobody, arguments, b""));
        assert_eq!(status, Some(1), "{arguments}");
        let expected = format!("hookline: cannot connect to localhost:{nobody}: Connection refused");
        assert!(said.starts_with(&expected), "{arguments}: {said}");
    }
}

#[test]
fn a_will_is_published_when_sub_is_killed_and_not_when_it_leaves() {
    let Some(broker) = Mosquitto::start("a_will_is_published_when_sub_is_killed_and_not_when_it_leaves") else {
        return;
    };
    for version in ["311", "5"] {
        let witness = subscribed(
            broker.port,
            &format!("-V {version} -q 1 -t open/will/# -C 1 -W 20 -F %t|%p|%q"),
        );
        let will = "--will-payload gone --will-qos 1 --will-topic open/will";
        printed(&broker.hookline(&format!("sub -V {version} -t open/x -E {will}/leaver")));
        let mut victim = subscribed(broker.port, &format!("-V {version} -t open/x {will}/victim"));
        victim.kill().unwrap();
        victim.wait().unwrap();
        assert_eq!(
            printed(&witness.wait_with_output().unwrap()),
            "open/will/victim|gone|1\n",
            "{version}"
        );
    }
}

#[test]
fn sub_ends_quietly_when_nobody_reads_it_any_more() {
    let Some(broker) = Mosquitto::start("sub_ends_quietly_when_nobody_reads_it_any_more") else {
        return;
    };
    let mut sub = subscribed(broker.port, "-q 1 -t open/pipe -W 20");
    let mut reader = BufReader::new(sub.stdout.take().unwrap());
    printed(&broker.hookline("pub -q 1 -t open/pipe -m first"));
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "first\n", "printed at once");
    drop(reader);
    printed(&broker.hookline("pub -q 1 -t open/pipe -m second"));
    assert_eq!(sub.wait().unwrap().code(), Some(0));
}

/// A broker that takes one client, answers CONNECT, and then does what the test says.
fn broker_that(act: impl FnOnce(&mut TcpStream) + Send + 'static) -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        read_packet(&mut client);
        client.write_all(&[0x20, 2, 0, 0]).unwrap();
        act(&mut client);
    });
    (port, served)
}

/// Packets here are shorter than 128 bytes.
fn read_packet(client: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 2];
    client.read_exact(&mut head).unwrap();
    let mut body = vec![0; usize::from(head[1])];
    client.read_exact(&mut body).unwrap();
    body
}

#[test]
fn pub_fails_when_the_broker_goes_before_it_acknowledged() {
    for qos in [1, 2] {
        let (port, served) = broker_that(|client| drop(read_packet(client)));
        let output = hookline(port, &format!("pub -q {qos} -t t -m x"), b"");
        let expected = format!("hookline: lost the connection to localhost:{port}: the broker closed it\n");
        assert_eq!(failed(&output), (Some(1), expected), "QoS {qos}");
        served.join().unwrap();
    }
}

#[test]
fn an_acknowledgement_that_comes_with_the_end_counts() {
    let (port, served) = broker_that(|client| {
        read_packet(client);
        client.write_all(&[0x40, 2, 0, 1]).unwrap();
    });
    printed(&hookline(port, "pub -q 1 -t t -m x", b""));
    served.join().unwrap();
}

#[test]
fn a_message_that_comes_with_the_end_is_printed() {
    let (port, served) = broker_that(|client| {
        read_packet(client);
        client.write_all(b"\x90\x03\x00\x01\x00\x30\x06\x00\x01tend").unwrap();
    });
    let output = hookline(port, "sub -t t -W 20", b"");
    let expected = format!("hookline: lost the connection to localhost:{port}: the broker closed it\n");
    assert_eq!(
        (String::from_utf8_lossy(&output.stdout).as_ref(), failed(&output)),
        ("end\n", (Some(1), expected))
    );
    served.join().unwrap();
}
