//! A hub on this machine: the few addresses and headers that downloading a model needs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// One request, as `GET /path`, with the first byte of the asked-for range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    pub range_start: Option<usize>,
    /// The byte after the last one asked for, where one is named.
    pub range_end: Option<usize>,
    /// Asked only for the first byte, to learn the size.
    pub is_probe: bool,
    pub authorization: Option<String>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    requests: Vec<Request>,
    /// Of this file, after how many bytes to hang up; used up from the front.
    cuts: Vec<(String, usize)>,
    ignores_ranges: bool,
}

/// Serves the model `org/name` until the process ends.
pub struct HubServer {
    state: Arc<Mutex<State>>,
    pub endpoint: String,
}

impl HubServer {
    pub fn start(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|&(name, bytes)| (name.to_owned(), bytes.to_vec())).collect();
        let state = Arc::new(Mutex::new(State { files, ..Default::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || answer(&state, stream));
            }
        });
        HubServer { state, endpoint }
    }

    /// Hangs up after `sent` bytes of `file`, once per call.
    pub fn cut(&self, file: &str, sent: usize) {
        self.state.lock().unwrap().cuts.push((file.to_owned(), sent));
    }

    pub fn ignore_ranges(&self) {
        self.state.lock().unwrap().ignores_ranges = true;
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Of the requests since the last call, those for content: the file and the byte from which on it was asked for.
    pub fn take_downloads(&self) -> Vec<(String, usize)> {
        let downloads = self.take_requests().into_iter().filter(|request| !request.is_probe && request.range_start.is_some());
        downloads.map(|request| (request.path.rsplit('/').next().unwrap().to_owned(), request.range_start.unwrap())).collect()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let mut request = Request { path, range_start: None, range_end: None, is_probe: false, authorization: None };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                request.is_probe = value == "bytes=0-0";
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

fn answer(state: &Mutex<State>, mut stream: TcpStream) {
    let Some(request) = read_request(&stream) else { return };
    let mut state = state.lock().unwrap();
    state.requests.push(request.clone());
    let prefix = format!("/org/name/resolve/{COMMIT}/");
    // A client that hangs up early is none of the server's business.
    let _ = if request.path.starts_with("/api/models/org/name/revision/") && !request.path.ends_with("/missing") {
        let siblings: Vec<_> = state.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        send(&mut stream, "200 OK", "Content-Type: application/json\r\n", body.as_bytes(), body.len())
    } else if let Some(file) = request.path.strip_prefix(&prefix).filter(|file| state.files.contains_key(*file)) {
        send_file(&mut stream, &mut state, &request, file)
    } else if request.path.contains("private") {
        send(&mut stream, "401 Unauthorized", "", b"", 0)
    } else {
        send(&mut stream, "404 Not Found", "", b"", 0)
    };
}

fn send_file(stream: &mut TcpStream, state: &mut State, request: &Request, file: &str) -> std::io::Result<()> {
    let bytes = &state.files[file];
    let size = bytes.len();
    let start = request.range_start.unwrap_or(0);
    let end = request.range_end.map_or(size, |end| end.min(size));
    let etag = bytes.iter().fold(size as u64, |hash, &byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    let headers = format!("ETag: \"{etag:016x}\"\r\nX-Repo-Commit: {COMMIT}\r\n");
    if start >= size {
        return send(stream, "416 Range Not Satisfiable", &format!("{headers}Content-Range: bytes */{size}\r\n"), b"", 0);
    }
    let body = if state.ignores_ranges && !request.is_probe { &bytes[..] } else { &bytes[start..end] };
    let cut = if request.is_probe { None } else { state.cuts.iter().position(|(name, _)| name == file) };
    let sent = cut.map_or(body.len(), |index| state.cuts[index].1.min(body.len()));
    let headers = format!("{headers}Content-Range: bytes {start}-{}/{size}\r\n", end - 1);
    let result = send(stream, "206 Partial Content", &headers, &body[..sent], body.len());
    if let Some(index) = cut {
        state.cuts.remove(index);
    }
    result
}

fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8], announced: usize) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {announced}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(body)?;
    stream.flush()
}
