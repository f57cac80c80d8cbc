//! Names whose addresses come late or not at all, in a network namespace with name servers of the
//! test's own.
//!
//! Needs root and `ip` (iproute2); without them the tests say so and pass.

mod process;

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use process::{Server, network::Machines};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use simple_dns::{
    CLASS, Packet, QTYPE, RCODE, ResourceRecord, TYPE,
    rdata::{A, AAAA, RData},
};

/// The addresses of the two name servers that the namespace's resolv.conf names, in its order.
const NAME_SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];
/// An address that no interface has and no route leads to.
const NOWHERE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// What a client waits for a connection; a name server that is silent is waited for as long.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a name server does with the questions for each kind of address.
#[derive(Clone, Copy)]
enum Answers {
    /// It has this address.
    V6(Ipv6Addr),
    /// See [`Answers::V6`].
    V4(Ipv4Addr),
    /// It swallows the question.
    Silence,
    /// It cannot tell.
    Failure,
    /// The name has no such address.
    Nothing,
}

/// What one name server says of AAAA and of A.
type Knows = [Answers; 2];

const LOOPBACKS: Knows = [Answers::V6(Ipv6Addr::LOCALHOST), Answers::V4(Ipv4Addr::LOCALHOST)];
const SILENT: Knows = [Answers::Silence, Answers::Silence];

/// A machine of its own with resolver settings; gone when dropped.
struct Network {
    machine: Machines,
}

impl Network {
    /// `None`, with the reason printed, where this host does not allow it.
    fn new(purpose: &str) -> Option<Network> {
        let network = Network { machine: Machines::new(purpose, &['m'])? };
        let servers = NAME_SERVERS.map(|server| format!("nameserver {server}\n")).concat();
        fs::create_dir_all(network.settings()).expect("root may");
        fs::write(network.settings().join("resolv.conf"), servers).expect("root may");
        fs::write(network.settings().join("nsswitch.conf"), "hosts: files dns\n").expect("as well");
        Some(network)
    }

    /// What `ip netns exec` lays over /etc.
    fn settings(&self) -> PathBuf {
        Path::new("/etc/netns").join(self.machine.namespace('m'))
    }

    /// Starts both name servers. Their threads end with the test's process.
    fn answer(&self, knows: [Knows; 2]) {
        for (address, knows) in NAME_SERVERS.into_iter().zip(knows) {
            let namespace = Path::new("/run/netns").join(self.machine.namespace('m'));
            let entered = thread::spawn(move || {
                let namespace = fs::File::open(namespace).expect("it was made");
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind)
                    .expect("root");
                UdpSocket::bind((address, 53)).expect("a port of our own")
            });
            let socket = entered.join().expect("the namespace can be entered");
            thread::spawn(move || serve(&socket, knows));
        }
    }

    /// Runs `client who` for the name and tells how long it took.
    fn who(&self, server: &Server) -> (Output, Duration) {
        let mut command = self.machine.command('m', env!("CARGO_BIN_EXE_client"));
        command.args(["--ip", "lab.example", "--port", &server.port.to_string(), "who"]);
        command.args(["--connect-timeout", &format!("{}s", PATIENCE.as_secs())]);
        command.env("XDG_STATE_HOME", server.state()).stdin(Stdio::null());
        let begun = Instant::now();
        let output = command.output().expect("the client starts");
        (output, begun.elapsed())
    }

    fn server(&self) -> Server {
        let mut command = self.machine.command('m', env!("CARGO_BIN_EXE_server"));
        command.args(["--port", "0", "--open"]);
        Server::start_command(command)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.settings());
    }
}

fn serve(socket: &UdpSocket, [v6, v4]: Knows) {
    let mut buffer = [0; 512];
    while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
        let query = Packet::parse(&buffer[..count]).expect("resolvers ask well");
        let question = query.questions[0].clone();
        let answers = if question.qtype == QTYPE::TYPE(TYPE::AAAA) { v6 } else { v4 };
        let mut reply = Packet::new_reply(query.id());
        let rdata = match answers {
            Answers::Silence => continue,
            Answers::V6(address) => Some(RData::AAAA(AAAA::from(address))),
            Answers::V4(address) => Some(RData::A(A::from(address))),
            Answers::Failure | Answers::Nothing => None,
        };
        if matches!(answers, Answers::Failure) {
            *reply.rcode_mut() = RCODE::ServerFailure;
        }
        let name = question.qname.clone();
        let record = |rdata| ResourceRecord::new(name, CLASS::IN, 60, rdata);
        reply.answers.extend(rdata.map(record));
        reply.questions.push(question);
        let bytes = reply.build_bytes_vec().expect("it is short");
        let _ = socket.send_to(&bytes, peer);
    }
}

/// How a name whose servers know this is connected to.
fn connects(purpose: &str, knows: [Knows; 2]) {
    let Some(network) = Network::new(purpose) else { return };
    network.answer(knows);
    let server = network.server();
    let (output, took) = network.who(&server);
    println!("{purpose}: {} ms", took.as_millis());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "after {took:?}: {errors}");
}

#[test]
fn swallowed_questions_for_ipv6_leave_ipv4() {
    let knows = [Answers::Silence, Answers::V4(Ipv4Addr::LOCALHOST)];
    connects("names-no-v6", [knows; 2]);
}

#[test]
fn swallowed_questions_for_ipv4_leave_ipv6() {
    let knows = [Answers::V6(Ipv6Addr::LOCALHOST), Answers::Silence];
    connects("names-no-v4", [knows; 2]);
}

#[test]
fn a_name_server_that_fails_for_one_family_leaves_the_other() {
    let knows = [Answers::Failure, Answers::V4(Ipv4Addr::LOCALHOST)];
    connects("names-servfail", [knows; 2]);
}

#[test]
fn a_silent_first_name_server_is_not_waited_for() {
    connects("names-second", [SILENT, LOOPBACKS]);
}

#[test]
fn an_ipv6_address_without_a_route_leaves_ipv4() {
    let knows = [Answers::V6(NOWHERE), Answers::V4(Ipv4Addr::LOCALHOST)];
    connects("names-no-route", [knows; 2]);
}

#[test]
fn a_name_without_addresses_or_answers_is_said_to_have_none() {
    let nothing = [Answers::Nothing; 2];
    for (purpose, knows, words) in [
        ("names-nothing", nothing, "cannot find the host lab.example"),
        ("names-silent", SILENT, "cannot find the host lab.example"),
    ] {
        let Some(network) = Network::new(purpose) else { return };
        network.answer([knows; 2]);
        let server = network.server();
        let (output, _) = network.who(&server);
        assert_eq!(output.status.code(), Some(3), "{purpose}");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(errors.contains(words), "{purpose}: {errors}");
    }
}
