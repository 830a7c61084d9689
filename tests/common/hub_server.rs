//! A hub on this machine, with the few addresses and headers that downloading a model needs, a second host that plays its storage, and
//! whatever faults a test wants.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    Hub,
    Storage,
}

/// One request, as `GET /path`, with the first byte of the asked-for range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub host: Host,
    pub method: String,
    pub path: String,
    pub range_start: Option<usize>,
    /// The byte after the last one asked for, where one is named.
    pub range_end: Option<usize>,
    pub authorization: Option<String>,
}

impl Request {
    pub fn file(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }
}

/// What the server says instead of the right answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Empty: nothing is sent at all.
    pub status: &'static str,
    /// Lines of `Name: value\r\n`.
    pub headers: String,
    pub body: Vec<u8>,
    /// More bytes than `body` has are promised.
    pub missing: usize,
    /// After the body nothing comes, and the connection stays open.
    pub stalls: bool,
}

impl Reply {
    pub fn status(status: &'static str) -> Self {
        Reply { status, ..Reply::default() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    pub fn body(self, body: &[u8]) -> Self {
        Reply { body: body.to_vec(), ..self }
    }
}

type Fault = Box<dyn FnMut(&Request, &Server) -> Option<Reply> + Send>;

/// What a fault may look at.
pub struct Server {
    files: BTreeMap<String, Vec<u8>>,
    pub hub: String,
    pub storage: String,
}

impl Server {
    pub fn bytes(&self, file: &str) -> &[u8] {
        &self.files[file]
    }

    /// As the hub names a file: large ones by their SHA-256, small ones as Git does.
    pub fn etag(&self, file: &str) -> String {
        let bytes = &self.files[file];
        let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        if file.ends_with(".safetensors") {
            hex(&Sha256::digest(bytes))
        } else {
            hex(&Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
        }
    }
}

struct State {
    server: Server,
    requests: Vec<Request>,
    /// Asked one after the other, before the right answer is given.
    faults: Vec<Fault>,
    /// After how many bytes of a file to hang up; used up from the front.
    cuts: Vec<(String, usize)>,
    /// Connections stay open, and answers to HEAD have the body that they must not have.
    is_sloppy: bool,
}

/// Serves the model `org/name` until the process ends.
pub struct HubServer {
    state: Arc<Mutex<State>>,
    pub endpoint: String,
}

impl HubServer {
    pub fn start(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|&(name, bytes)| (name.to_owned(), bytes.to_vec())).collect();
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [hub, storage] = [0, 1].map(|index| format!("http://{}", listeners[index].local_addr().unwrap()));
        let server = Server { files, hub: hub.clone(), storage };
        let state = State { server, requests: Vec::new(), faults: Vec::new(), cuts: Vec::new(), is_sloppy: false };
        let state = Arc::new(Mutex::new(state));
        for (listener, host) in listeners.into_iter().zip([Host::Hub, Host::Storage]) {
            let shared = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = shared.clone();
                    std::thread::spawn(move || answer(&state, stream, host));
                }
            });
        }
        HubServer { state, endpoint: hub }
    }

    /// Adds a fault: where it gives a reply, that is the answer.
    pub fn fault(&self, fault: impl FnMut(&Request, &Server) -> Option<Reply> + Send + 'static) {
        self.state.lock().unwrap().faults.push(Box::new(fault));
    }

    /// Sends every `.safetensors` file from the other host, as the hub does, with `status`.
    pub fn use_storage(&self, status: &'static str) {
        self.fault(move |request, server| {
            let is_away = request.host == Host::Storage || !request.file().ends_with(".safetensors");
            if is_away || !request.path.contains("/resolve/") {
                return None;
            }
            let reply = Reply::status(status).header("Location", &format!("{}{}?signature=1", server.storage, request.path));
            let reply = reply.header("X-Linked-ETag", &format!("\"{}\"", server.etag(request.file())));
            Some(reply.header("X-Linked-Size", &server.bytes(request.file()).len().to_string()))
        });
    }

    /// Keeps connections open, and sends what HEAD asks for with its content.
    pub fn send_bodies_to_head(&self) {
        self.state.lock().unwrap().is_sloppy = true;
    }

    /// Hangs up after `sent` bytes of `file`, once per call.
    pub fn cut(&self, file: &str, sent: usize) {
        self.state.lock().unwrap().cuts.push((file.to_owned(), sent));
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// The requests for content since the last call: the file, and the first byte that was asked for.
    pub fn take_downloads(&self) -> Vec<(String, usize)> {
        let is_download = |request: &Request| request.method == "GET" && request.path.contains("/resolve/");
        let downloads = self.take_requests().into_iter().filter(is_download);
        downloads.map(|request| (request.file().to_owned(), request.range_start.unwrap_or(0))).collect()
    }
}

fn read_request(stream: &TcpStream, host: Host) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let (method, path) = (first.split(' ').next()?.to_owned(), first.split(' ').nth(1)?.split('?').next()?.to_owned());
    let mut request = Request { host, method, path, range_start: None, range_end: None, authorization: None };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let (start, end) = value.strip_prefix("bytes=")?.split_once('-')?;
                request.range_start = start.parse().ok();
                request.range_end = end.parse().ok().map(|last: usize| last + 1);
            }
            "authorization" => request.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(request)
}

fn answer(state: &Mutex<State>, mut stream: TcpStream, host: Host) {
    let Some(request) = read_request(&stream, host) else { return };
    let is_sloppy = state.lock().unwrap().is_sloppy;
    let reply = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        let State { server, faults, .. } = &mut *state;
        let fault = faults.iter_mut().find_map(|fault| fault(&request, server));
        fault.unwrap_or_else(|| right_answer(&mut state, &request))
    };
    if !reply.status.is_empty() {
        // A client that hangs up early is none of the server's business.
        let _ = send(&mut stream, &reply, request.method == "HEAD", is_sloppy);
    }
    if is_sloppy && reply.missing == 0 {
        return answer(state, stream, host);
    }
    if reply.stalls {
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}

fn right_answer(state: &mut State, request: &Request) -> Reply {
    let prefix = format!("/org/name/resolve/{COMMIT}/");
    if request.path.starts_with("/api/models/org/name/revision/") && !request.path.ends_with("/missing") {
        let siblings: Vec<_> = state.server.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        return Reply::status("200 OK").header("Content-Type", "application/json").body(body.as_bytes());
    }
    match request.path.strip_prefix(&prefix).filter(|file| state.server.files.contains_key(*file)) {
        Some(file) => file_answer(state, request, file),
        None if request.path.contains("private") => Reply::status("401 Unauthorized"),
        None => Reply::status("404 Not Found"),
    }
}

fn file_answer(state: &mut State, request: &Request, file: &str) -> Reply {
    let bytes = &state.server.files[file];
    let (size, start) = (bytes.len(), request.range_start.unwrap_or(0));
    let end = request.range_end.map_or(size, |end| end.min(size));
    let headers = Reply::default().header("ETag", &format!("\"{}\"", state.server.etag(file))).header("X-Repo-Commit", COMMIT);
    if start >= size && size > 0 {
        return Reply { status: "416 Range Not Satisfiable", ..headers.header("Content-Range", &format!("bytes */{size}")) };
    }
    let body = &bytes[start..end];
    let cut = if request.method == "HEAD" { None } else { state.cuts.iter().position(|(name, _)| name == file) };
    let sent = cut.map_or(body.len(), |index| state.cuts.remove(index).1.min(body.len()));
    let reply = Reply { missing: body.len() - sent, ..headers.body(&body[..sent]) };
    match request.range_start {
        None => Reply { status: "200 OK", ..reply },
        Some(_) => {
            let reply = reply.header("Content-Range", &format!("bytes {start}-{}/{size}", end - 1));
            Reply { status: "206 Partial Content", ..reply }
        }
    }
}

fn send(stream: &mut TcpStream, reply: &Reply, is_head: bool, is_sloppy: bool) -> std::io::Result<()> {
    let announced = reply.body.len() + reply.missing;
    let Reply { status, headers, body, .. } = reply;
    let connection = if is_sloppy { "keep-alive" } else { "close" };
    write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {announced}\r\nConnection: {connection}\r\n\r\n")?;
    if !is_head || is_sloppy {
        stream.write_all(body)?;
    }
    stream.flush()
}
