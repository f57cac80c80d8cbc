//! The bounds that more than one file goes by or that a peer meets, each with its reason.
//!
//! A bound that one file alone goes by stands at its head. Such are the budgets of a turn
//! (`..._PER_TURN`), and how far a transfer runs ahead within the windows below: `AHEAD_BYTES` of
//! the server and of each client's mover (what is read before it can go), `GATHER_BYTES` (what goes
//! out in one piece), `CREDIT_STEP_BYTES` and `LINK_LOW_BYTES` of a client's link (when more is
//! granted, and sent), and of a channel between clients `UNACKNOWLEDGED_MAX_BYTES`,
//! `HELD_MAX_BYTES`, `PIPE_AHEAD_BYTES` and `PIPE_STEP_BYTES`.

use std::time::Duration;

/// Longest user name in bytes: part of the protocol.
pub const NAME_MAX_BYTES: usize = 32;

/// Longest text of one message in bytes: part of the protocol.
pub const TEXT_MAX_BYTES: usize = 64 * 1024;

/// Most recipients one message may name. Bounds what one line can make the server write.
pub const RECIPIENTS_MAX: usize = 64;

/// Longest list of recipients in bytes: the names and the commas between them.
pub const RECIPIENTS_MAX_BYTES: usize = RECIPIENTS_MAX * (NAME_MAX_BYTES + 1);

/// Most bytes of a transfer or a pipe in one data frame: a chat line waits for one at most.
pub const CHUNK_MAX_BYTES: usize = 64 * 1024;

/// Largest frame body: the largest message fits, and little more. Checked before the body is
/// waited for, so that a hostile length costs nothing.
pub const FRAME_BODY_MAX_BYTES: usize = 72 * 1024;

/// Longest line of somebody who has not said anything valid yet.
pub const LINE_FIRST_MAX_BYTES: usize = 4096;

/// Longest line afterwards: the longest text with its recipients.
pub const LINE_MAX_BYTES: usize = TEXT_MAX_BYTES + RECIPIENTS_MAX_BYTES + 64;

/// Largest body of a frame that a client sends. Smaller than [`FRAME_BODY_MAX_BYTES`], so that
/// whatever a request says can be said back in one frame.
pub const REQUEST_BODY_MAX_BYTES: usize = LINE_MAX_BYTES;

/// Largest JSON object of a request in bytes; checked before anything is built of it.
pub const OBJECT_MAX_BYTES: usize = 1024 * 1024;

/// Largest JSON object of a peer that has to say who it is and has not yet: half of the 32 KiB
/// that such a peer may cost.
pub const OBJECT_FIRST_MAX_BYTES: usize = 16 * 1024;

/// Failed logins of one source that cost it nothing: a house full of people who mistype.
pub const LOGIN_FAILURES_FREE: u32 = 20;

/// What each further one adds to the wait before its next login is looked at.
pub const LOGIN_WAIT_STEP: Duration = Duration::from_millis(100);

/// Failures that count at most: so a wait has an end, and so has its reason.
pub const LOGIN_DEBT_MAX: u32 = 60;

/// A failure is forgotten after so long, one after another.
pub const LOGIN_FAILURE_FORGOTTEN_AFTER: Duration = Duration::from_secs(1);

/// Sources whose failures are remembered, some 50 bytes each. A flood from more of them has other
/// means.
pub const LOGIN_SOURCES_MAX: usize = 16_384;

/// Deepest nesting of objects and arrays in a request, the request itself included. No request
/// needs more than three.
pub const OBJECT_DEPTH_MAX: usize = 32;

/// Longest id of a JSON request in bytes as it is written: it is kept until the reply.
pub const ID_MAX_BYTES: usize = 1024;

/// Longest sentence of an error in bytes. It may quote the peer, who has more to say.
pub const REFUSAL_TEXT_MAX_BYTES: usize = 512;

/// Longest command of `run` in bytes. The kernel takes 128 KiB in one argument.
pub const COMMAND_MAX_BYTES: usize = 64 * 1024;

/// Longest password in bytes. Longer ones are refused before anything is computed from them.
pub const PASSWORD_MAX_BYTES: usize = 1024;

/// Failed logins in a row that block a name, unless the operator says otherwise.
pub const LOGIN_ATTEMPTS_DEFAULT: u8 = 3;

/// Most of them that the operator may allow.
pub const LOGIN_ATTEMPTS_MAX: u8 = 5;

/// Failed logins of one connection, after which it is ended: more than anybody mistypes.
pub const LOGIN_FAILURES_MAX: u8 = 10;

/// Longest path in bytes, and longest part of one: what Linux takes (`PATH_MAX`, `NAME_MAX`).
pub const PATH_MAX_BYTES: usize = 4095;
/// See [`PATH_MAX_BYTES`].
pub const PATH_PART_MAX_BYTES: usize = 255;

/// Bytes of standard input that a client may send before the command has taken any.
pub const INPUT_WINDOW_BYTES: u32 = 256 * 1024;

/// Longest introduction of one client to another in bytes of JSON: keys and addresses fit.
pub const INTRODUCTION_MAX_BYTES: usize = 2048;

/// Longest reason of a refused offer in bytes. It goes into the sentence of an error.
pub const REASON_MAX_BYTES: usize = 256;

/// Bytes of output that the server may send in one operation before the client has asked for
/// more with a credit frame.
pub const OUTPUT_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Longest line of a file of samples in bytes, without its end: no integer of ours has more than
/// 20, and whoever pads them has room for that.
pub const SAMPLE_LINE_MAX_BYTES: usize = 1024;

/// Largest file of samples that a device may upload: a hundred million samples of ten bytes. One
/// device cannot fill a disk by a single request.
pub const SAMPLES_MAX_BYTES: u64 = 1 << 30;

/// Most samples that the client generates in one file, so that they can be uploaded.
pub const SAMPLES_GENERATED_MAX: u64 = 100_000_000;

/// Largest file that a device takes from another one without being asked.
pub const DEVICE_FILE_MAX_BYTES: u64 = 1 << 30;

/// Largest batch that a command may measure at a time, in bytes: it is held in memory.
pub const SPOOL_BATCH_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Most batches that wait at a device for the server: a day of one every 10 s.
pub const SPOOL_MAX_BATCHES: usize = 10_000;

/// The same in bytes, so that a device that is alone for long does not fill its disk.
pub const SPOOL_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Longest id of a request that may be repeated, in bytes: room for a UUID and a prefix.
pub const REQUEST_ID_MAX_BYTES: usize = 64;

/// Requests of one device that are remembered, so that repeats are answered again: more than a
/// device has under way when it loses its connection.
pub const REQUESTS_REMEMBERED_PER_DEVICE: usize = 256;

/// The same of all devices: about 20 MiB of memory and as much on disk.
pub const REQUESTS_REMEMBERED: usize = 65_536;

/// Hidden files and folders that a server remembers (and holds a descriptor of each): what is
/// hidden now, and what was before it was replaced, as long as that has another name. Each change
/// of passwords or keys adds one only where somebody keeps links to the older ones.
pub const HIDDEN_KNOWN_MAX: usize = 128;

/// What is a rate in the facts about the host is measured for so long, in milliseconds: the kernel
/// counts time in steps of 10 ms, so less than this says little.
pub const INFO_INTERVAL_MS: u32 = 500;
/// The shortest interval that may be asked for.
pub const INFO_INTERVAL_MIN_MS: u32 = 100;
/// The longest one: an operation that only waits is not to wait for ever.
pub const INFO_INTERVAL_MAX_MS: u32 = 60_000;

/// Requests of one ping of another host, as people know it from Windows and from `-c 4`.
pub const PING_COUNT: u32 = 4;
/// Seconds after which `ping` ends, whatever came back.
pub const PING_SECONDS: u32 = 10;
/// Time that a program which only tells something may take, in milliseconds. It is more than
/// [`PING_SECONDS`], which `ping` keeps by itself.
pub const PROGRAM_TIMEOUT_MS: u64 = 15_000;

/// The same for `store`, whose input is written to a disk by a worker: enough for both ends to be
/// at work at once.
pub const STORE_WINDOW_BYTES: u32 = 1024 * 1024;

/// Most bytes in one DATA message of a transfer.
pub const TRANSFER_DATA_MAX_BYTES: usize = 1024 * 1024;

/// Most zeros that one HOLE of a transfer stands for: they cost no bytes, but time to be hashed.
pub const TRANSFER_HOLE_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Room on the disk that a file takes at least ahead of what has come of it. Whoever announces much
/// and sends one byte has no more.
pub const RESERVE_MIN_BYTES: u64 = 1024 * 1024;

/// Room that it takes at most ahead, however much has come: enough for few, long pieces.
pub const RESERVE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Folders and links that come with an offer, however few files it tells of.
pub const OFFER_FOLDERS_MIN: u64 = 1000;

/// And so many more for each file: who is asked about one file does not get millions of folders.
pub const OFFER_FOLDERS_A_FILE: u64 = 16;

/// Files of one transfer that are remembered, so that none of them replaces another one whose name
/// the disk takes for the same: 16 bytes each.
pub const WRITTEN_MAX: usize = 1_000_000;

/// Folders of one transfer that get their time and mode in the end, and are swept of what dead
/// transfers have left. What comes beyond that has the time at which it was received.
pub const FOLDERS_NOTED_MAX: usize = 100_000;

/// Most entries of a transfer that are announced and not finished: what either end remembers.
pub const TRANSFER_OPEN_MAX: usize = 1024;

/// The same for the bytes of their paths; one path may go beyond it.
pub const TRANSFER_OPEN_BYTES_MAX: usize = 256 * 1024;

/// Announced files that are open at once to prove that they are there already: others want to open
/// files as well. Each is closed when the sender has said what is to become of it.
pub const TRANSFER_CLAIMS_MAX: usize = 64;

/// Files up to this size are sent from memory, many in one piece, and never resumed.
pub const TRANSFER_SMALL_MAX_BYTES: usize = 64 * 1024;

/// Most entries of one transfer, so that a list without an end has one.
pub const TRANSFER_ENTRIES_MAX: u32 = 10_000_000;

/// Folders and links that one transfer to a server makes, those on the way to a file included: no
/// quota of bytes counts them, and each takes an inode of the disk. Large trees of sources have
/// some ten thousand.
pub const STORE_FOLDERS_MAX: usize = 100_000;

/// Places at which an introduction may send a client to look for another one.
pub const DIRECT_CANDIDATES_MAX: usize = 16;

/// Addresses of its own that a client announces.
pub const DIRECT_ADDRESSES_MAX: usize = 8;

/// Lowest UDP port of a client. Below are services that a stranger must not make us talk to
/// (the bounce attack, RFC 2577).
pub const DIRECT_PORT_MIN: u16 = 1024;

/// Channels between clients that one client has at once; each may hold
/// [`DIRECT_RECEIVE_WINDOW_BYTES`] and [`DIRECT_SEND_WINDOW_BYTES`].
pub const DIRECT_CHANNELS_MAX: usize = 16;

/// Handshakes that others have begun and that have not yet shown their token.
pub const DIRECT_PENDING_MAX: usize = 64;

/// That many of them, and further ones have to prove their address first (RFC 9000, section 8.1).
pub const DIRECT_RETRY_FROM: usize = 16;

/// Time to find a direct path; the transfer waits for it before it goes through the server.
pub const DIRECT_RACE_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause between the dials of two candidates: the least that RFC 8305, section 5, recommends, so
/// that all of them have their turn within [`DIRECT_RACE_TIMEOUT`].
pub const DIRECT_ATTEMPT_DELAY: Duration = Duration::from_millis(100);

/// Datagrams (of 1,200 bytes) to an address that has not answered, within 10 s and over all
/// channels: whoever is introduced may have named somebody else's. One race on a line that loses
/// much takes up to 10, and each channel at once to one client needs one at least.
pub const DIRECT_UNANSWERED_ADDRESS_MAX: u32 = 48;

/// The same to all addresses: 192 kB in 10 s.
pub const DIRECT_UNANSWERED_MAX: u32 = 160;

/// The same to an address that the other end alone tells of, and that may be anybody's: a first
/// one, and two more where it is lost.
pub const DIRECT_CLAIMED_ADDRESS_MAX: u32 = 3;

/// The same to all of those: 14 kB in 10 s.
pub const DIRECT_CLAIMED_MAX: u32 = 12;

/// Silence after which the other end is gone (RFC 9308, section 3.2).
pub const DIRECT_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that one channel holds for a reader that does not read.
pub const DIRECT_RECEIVE_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Bytes that one channel has taken from its writer and keeps until they are acknowledged.
pub const DIRECT_SEND_WINDOW_BYTES: u64 = 8 * 1024 * 1024;

/// Silence of a peer's host, asked again and again meanwhile, after which a connection for which
/// something is held is dead. A host answers within milliseconds, whatever its programs do; three
/// answers in a row are lost by a network that is out of order, hardly by one that is bad.
pub const PEER_SILENT_MAX: Duration = Duration::from_secs(9);

/// How often a connection is looked at on which something is waited for; with [`PEER_SILENT_MAX`]
/// a dead one is known after 15 s at most.
pub const PULSE_EVERY: Duration = Duration::from_secs(3);

/// Bytes that the files of devices may take together on a server that serves anybody, unless the
/// operator says otherwise: some million samples, and no disk is full of them.
pub const OPEN_QUOTA_DEFAULT_BYTES: u64 = 64_000_000;

/// A folder of devices whose quota seems to be used up is looked through so often at most.
pub const OPEN_QUOTA_LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Memory that the transfers of one session take, those to it and those from it: beyond it less is
/// read ahead, and no more files may be announced. A transfer to the server takes 1 MB at most.
pub const EXCHANGES_OF_ONE_MAX_BYTES: usize = 32 * 1024 * 1024;

/// The same for all sessions together.
pub const EXCHANGES_TOTAL_MAX_BYTES: usize = 192 * 1024 * 1024;

/// Entries of one listing at most; more are said to be there and not shown.
pub const LISTING_MAX_ENTRIES: usize = 1_000_000;

/// Bytes of names that a listing holds at a time: with those, folders of some hundred thousand
/// names are read once.
pub const LISTING_WINDOW_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The same where its session, or all sessions, hold much already: a folder of ten thousand names
/// is read some ten times then.
pub const LISTING_WINDOW_LEAST_BYTES: usize = 64 * 1024;

/// What the listings of one session hold before their windows become small.
pub const LISTINGS_OF_ONE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The same for all sessions together.
pub const LISTINGS_TOTAL_MAX_BYTES: usize = 128 * 1024 * 1024;

/// A job of a worker that has lasted so long is taken for stuck: on a disk that is dead, most
/// likely. Its thread counts no longer, and another one takes its place.
pub const WORKER_STUCK_AFTER: Duration = Duration::from_millis(500);

/// Threads that a pool has at most in place of those that are stuck: nothing ends a call to a dead
/// disk, and threads are not to be had without end.
pub const WORKER_SPARES_MAX: usize = 16;

/// Jobs of one session that may wait in one pool: one for each of its operations, and as many
/// of operations that it has given up.
pub const WORKER_JOBS_OF_ONE_MAX: usize = 128;

/// Bounds that are policy, not protocol. A value, so that simulations can make them small enough
/// to be hit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in the slab, logged in or not. One `who` of them all fits an outbox.
    pub sessions_max: usize,
    /// Sessions from one source that have not said who they are: an address, of IPv6 a /64. Whole
    /// offices share one address, but nobody stays without a name for long there. Loopback has
    /// more.
    pub strangers_by_source_max: usize,
    /// Bytes waiting for one session. A message that would pass this is refused (`peer-busy`).
    pub outbox_max_bytes: usize,
    /// Bulk is pulled only below this mark: back-pressure, and room for chat meanwhile.
    pub outbox_low_bytes: usize,
    /// Bytes of memory waiting for all sessions, JSON replies included. Beyond it sessions go that
    /// take nothing, those that hold most first: one alone costs little, thousands of them do not.
    pub waiting_total_max_bytes: usize,
    /// How long a session must have taken nothing to be one of those.
    pub waiting_patience: Duration,
    /// Bytes of requests that have begun and not ended, of all sessions, as far as they are large.
    /// Beyond it the session with the most of them goes.
    pub unfinished_total_max_bytes: usize,
    /// Requests of a session are read only while less than this waits for it, so that what it
    /// asks for can never overflow its own outbox.
    pub outbox_pause_bytes: usize,
    /// Bytes of one pulled chunk, at most [`CHUNK_MAX_BYTES`].
    pub chunk_max_bytes: usize,
    /// Output of one operation that may be on its way without credit, [`OUTPUT_WINDOW_BYTES`] in
    /// earnest.
    pub output_window_bytes: u32,
    /// Standard input of one command that may wait, [`INPUT_WINDOW_BYTES`] in earnest.
    pub input_window_bytes: u32,
    /// What is received of one upload and may wait, [`STORE_WINDOW_BYTES`] in earnest.
    pub store_window_bytes: u32,
    /// Operations of one session under way at once.
    pub operations_max: usize,
    /// Operations of all sessions: each may own a process with four descriptors.
    pub operations_total_max: usize,
    /// Operations of one source: a user with a password, else an address, or a network of IPv6
    /// (/64). A quarter of all, so that nobody takes them all with a few connections.
    pub operations_source_max: usize,
    /// An upload that waits for its owner for so long goes when operations are wanted and none is
    /// left. Without that need it may wait: what is piped into a client comes when it comes. That
    /// of an owner without a password goes in any case.
    pub upload_idle_timeout: Duration,
    /// Bytes of output, entries or content that one JSON reply may hold. A command with more is
    /// ended. A folder of 100,000 files fits.
    pub reply_max_bytes: usize,
    /// Bytes that all replies of one session may hold. Beyond that all but the largest wait, which
    /// must be able to come to its end; and that too, where one is ready and not taken.
    pub replies_session_max_bytes: usize,
    /// The same for all sessions together: beyond it replies are cut short, so that memory ends
    /// where the machine's does not.
    pub replies_total_max_bytes: usize,
    /// Bytes of input that came whole with the JSON requests of one session and still wait to be
    /// taken: a request whose input does not fit is told `busy`. One always fits an idle session.
    pub inputs_session_max_bytes: usize,
    /// The same for all sessions together.
    pub inputs_total_max_bytes: usize,
    /// Largest file whose content stands in a JSON reply; that of others goes ahead of it.
    pub content_max_bytes: u64,
    /// Offers that one user may have to answer, and offers of one user that may wait for answers:
    /// more than that is no help to anybody.
    pub offers_max: usize,
    /// Those of one sender to one user, so that the user hears of others as well: a sender is a
    /// session, and at an open server an address, since names are free there.
    pub offers_of_one_max: usize,
    /// Offers of one source, as for operations: a quarter of all.
    pub offers_source_max: usize,
    /// Offers of all users. Each may hold the content of one small file.
    pub offers_total_max: usize,
    /// Time in which an offer is to be answered: time to walk to the machine and look.
    pub offer_timeout: Duration,
    /// Time without a byte between two users after which their transfer is given up.
    pub pipe_stall_timeout: Duration,
    /// Receipts that one session owes, so that a client which never acknowledges costs little.
    pub receipts_max: usize,
    /// Time from the connection to the first valid request, whatever trickles in between.
    pub first_request_timeout: Duration,
    /// Time from the connection to the login, where the server asks for one: somebody who types has
    /// to find the password, and a place must not be held for ever by a nobody.
    pub login_timeout: Duration,
    /// How long a name is blocked after too many failed logins.
    pub lockout_time: Duration,
    /// Names nobody has, whose failed logins are remembered: about 150 bytes each.
    pub unknown_names_max: usize,
    /// Passwords checked at once: each may take a core, and 19 MiB, for some 20 ms.
    pub verifications_max: usize,
    /// Logins that may wait for that; the next one is told that the server is busy.
    pub logins_waiting_max: usize,
    /// The same from one source of which some have failed lately, so that others find room as well.
    pub logins_by_source_max: usize,
    /// Bytes waiting for somebody who must log in and has not, beyond which no more requests of
    /// theirs are read: nobodies are many, and shall be cheap.
    pub outbox_nobody_bytes: usize,
    /// A ping that is unanswered for so long lets a namesake without a password take the name over.
    pub half_open_after: Duration,
    /// Time a closing connection has to take its last bytes.
    pub closing_timeout: Duration,
    /// How often a peer is looked at for which something is held: an operation, an offer, a
    /// receipt. [`PULSE_EVERY`] in earnest.
    pub watch_every: Duration,
    /// Silence of a framed client after which it is asked whether it is there.
    pub ping_after: Duration,
    /// Silence of a framed client after which it is gone.
    pub gone_after: Duration,
    /// Time without a byte taken after which a peer with waiting bytes is gone.
    pub stall_timeout: Duration,
    /// The same once its outbox was full and messages to it had to be refused.
    pub slow_consumer_timeout: Duration,
    /// Time that operations have to finish when the server stops.
    pub shutdown_timeout: Duration,
}

/// Of a memory that all share one source takes one part of so many, and what one session may have
/// in any case: an address makes as many sessions as it likes.
pub const SOURCE_PART: usize = 4;

/// Sockets that wait for their peers to hang up, of so many descriptors: those beyond are closed
/// at once.
pub fn lingering_max(descriptors: u64) -> usize {
    usize::try_from(descriptors / 8).unwrap_or(usize::MAX).min(4096)
}

/// A client gives a server no larger window for the output of one operation: what has room is held
/// in memory until its writer has taken it.
pub const CLIENT_WINDOW_MAX_BYTES: u32 = 64 * 1024 * 1024;

/// A client that has so many bytes waiting for its server answers no more: a server that asks and
/// does not read would fill its memory.
pub const CLIENT_OUTGOING_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Offers that wait at a client for their answer: a server passes on no more for one sender.
pub const CLIENT_OFFERS_MAX: usize = 64;

/// Operations that a client has under way because of what others do. Who answers offers for ever
/// and never sees an end of that talks to a broken server.
pub const CLIENT_ANSWERS_MAX: usize = 4096;

/// Users that a client lists and completes: more than a server lets in.
pub const CLIENT_NAMES_MAX: usize = 65_536;

impl Limits {
    /// Those of a real server; a constant, so that others can be made of it.
    pub const USUAL: Limits = Limits {
        sessions_max: 20_000,
        strangers_by_source_max: 256,
        outbox_max_bytes: 1024 * 1024,
        outbox_low_bytes: 128 * 1024,
        waiting_total_max_bytes: 256 * 1024 * 1024,
        waiting_patience: Duration::from_secs(1),
        unfinished_total_max_bytes: 64 * 1024 * 1024,
        outbox_pause_bytes: 256 * 1024,
        chunk_max_bytes: CHUNK_MAX_BYTES,
        output_window_bytes: OUTPUT_WINDOW_BYTES,
        input_window_bytes: INPUT_WINDOW_BYTES,
        store_window_bytes: STORE_WINDOW_BYTES,
        operations_max: 64,
        operations_total_max: 1024,
        operations_source_max: 256,
        upload_idle_timeout: Duration::from_secs(60),
        reply_max_bytes: 8 * 1024 * 1024,
        replies_session_max_bytes: 16 * 1024 * 1024,
        replies_total_max_bytes: 192 * 1024 * 1024,
        inputs_session_max_bytes: 8 * 1024 * 1024,
        inputs_total_max_bytes: 64 * 1024 * 1024,
        content_max_bytes: 1024 * 1024,
        offers_max: 16,
        offers_of_one_max: 4,
        offers_source_max: 128,
        offers_total_max: 512,
        offer_timeout: Duration::from_secs(120),
        pipe_stall_timeout: Duration::from_secs(60),
        receipts_max: 4096,
        first_request_timeout: Duration::from_secs(10),
        login_timeout: Duration::from_secs(120),
        lockout_time: Duration::from_secs(10),
        unknown_names_max: 65_536,
        verifications_max: 2,
        logins_waiting_max: 64,
        logins_by_source_max: 16,
        outbox_nobody_bytes: 8 * 1024,
        half_open_after: Duration::from_secs(2),
        closing_timeout: Duration::from_secs(2),
        watch_every: PULSE_EVERY,
        ping_after: Duration::from_secs(90),
        gone_after: Duration::from_secs(150),
        stall_timeout: Duration::from_secs(60),
        slow_consumer_timeout: Duration::from_secs(10),
        shutdown_timeout: Duration::from_secs(8),
    };

    /// The same for a process that may have so many descriptors. A part is kept back from
    /// connections: for commands, files and workers of those who are in, and for sockets on their
    /// way out.
    pub fn within(self, descriptors: u64) -> Limits {
        // The listeners, poller, signals, pipes and folders of an idle server, and some room.
        const OWN: usize = 24;
        const PER_OPERATION: usize = 4;
        let all = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let reserve = (all / 4).min(PER_OPERATION * self.operations_total_max);
        let sessions = all.saturating_sub(OWN + reserve + lingering_max(descriptors)).max(4);
        let operations_total_max = (reserve / PER_OPERATION).max(4);
        Limits {
            sessions_max: sessions.min(self.sessions_max),
            operations_total_max,
            operations_source_max: self.operations_source_max.min(operations_total_max),
            ..self
        }
    }

    /// Whether these bounds make sense, each by itself and with each other; else which do not. Of
    /// what has passed this, nothing later is to be asserted that a bound could break.
    ///
    /// # Errors
    /// What contradicts what.
    pub fn check(&self) -> Result<(), &'static str> {
        let rules = [
            (self.sessions_max > 0, "no session may be open"),
            (self.sessions_max < 1 << 24, "a session's slot has 24 bits of its id"),
            (self.operations_max > 0, "no operation may be under way"),
            (self.operations_source_max > 0, "no source may have an operation"),
            (
                self.operations_source_max <= self.operations_total_max,
                "one source may have more operations than all",
            ),
            (self.chunk_max_bytes > 0, "a chunk holds nothing"),
            (self.chunk_max_bytes <= CHUNK_MAX_BYTES, "a chunk does not fit a frame"),
            (self.output_window_bytes > 0, "no output may be on its way"),
            (self.input_window_bytes > 0, "no input may be on its way"),
            (self.outbox_low_bytes > 0, "an empty outbox is not low"),
            (self.outbox_low_bytes <= self.outbox_pause_bytes, "low is above the pause"),
            (self.outbox_pause_bytes < self.outbox_max_bytes, "the pause is above the most"),
            (
                self.outbox_max_bytes <= self.waiting_total_max_bytes,
                "one outbox may hold more than all",
            ),
            (
                self.replies_total_max_bytes <= self.waiting_total_max_bytes,
                "replies may hold more than all that waits",
            ),
            (self.content_max_bytes <= self.reply_max_bytes as u64, "content fits no reply"),
            (
                self.reply_max_bytes <= self.replies_session_max_bytes,
                "one reply may hold more than all of its session",
            ),
            (
                self.replies_session_max_bytes <= self.replies_total_max_bytes,
                "the replies of one session may hold more than all",
            ),
            (
                self.inputs_session_max_bytes <= self.inputs_total_max_bytes,
                "the input of one session may hold more than all",
            ),
            (self.verifications_max > 0, "no password may be checked"),
            (
                self.unknown_names_max > self.verifications_max,
                "a name is forgotten while its password is checked",
            ),
            (self.ping_after < self.gone_after, "silence is the end before it is asked about"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what))
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::USUAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_descriptors_there_are_the_limits_make_sense() {
        for descriptors in (0..2000).chain([4096, 20_000, 1 << 20, u64::MAX]) {
            let limits = Limits::USUAL.within(descriptors);
            assert_eq!(limits.check(), Ok(()), "{descriptors} descriptors");
        }
    }

    #[test]
    fn limits_that_contradict_each_other_are_told() {
        let usual = Limits::USUAL;
        assert_eq!(usual.check(), Ok(()));
        for (wrong, words) in [
            (Limits { sessions_max: 0, ..usual }, "no session"),
            (Limits { sessions_max: 1 << 24, ..usual }, "24 bits"),
            (Limits { operations_max: 0, ..usual }, "no operation"),
            (Limits { operations_source_max: 2000, ..usual }, "one source"),
            (Limits { chunk_max_bytes: CHUNK_MAX_BYTES + 1, ..usual }, "a frame"),
            (Limits { outbox_low_bytes: 1 << 19, ..usual }, "above the pause"),
            (Limits { outbox_pause_bytes: 1 << 20, ..usual }, "above the most"),
            (Limits { waiting_total_max_bytes: 1000, ..usual }, "one outbox"),
            (Limits { content_max_bytes: 1 << 40, ..usual }, "no reply"),
            (Limits { inputs_total_max_bytes: 1000, ..usual }, "more than all"),
            (Limits { verifications_max: 0, ..usual }, "no password"),
            (Limits { unknown_names_max: 2, ..usual }, "forgotten"),
            (Limits { gone_after: usual.ping_after, ..usual }, "silence"),
        ] {
            let told = wrong.check().expect_err(words);
            assert!(told.contains(words), "{told}");
        }
    }
}
