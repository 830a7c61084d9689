//! `moebius devices`: the adapters of this machine.

use super::table;
use super::talk::talk;
use anyhow::Result;
use clap::Args;
use moebius::bench;
use moebius::error::human_bytes;
use moebius::gpu::{self, AdapterSummary};
use std::io::Write;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius devices
  moebius devices --json
  moebius run --device gpu:1     run on the adapter with index 1";

/// List the adapters, best first, with the limits that matter.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct DevicesArgs {
    /// Print a JSON array on stdout.
    #[arg(long)]
    json: bool,
}

impl DevicesArgs {
    pub async fn run(&self) -> Result<ExitCode> {
        let adapters = gpu::list_adapters().await;
        let mut stdout = std::io::stdout().lock();
        if self.json {
            let list: Vec<_> = adapters
                .iter()
                .enumerate()
                .map(|(index, adapter)| {
                    let mut json = bench::adapter_json(adapter);
                    json["device"] = format!("gpu:{index}").into();
                    json
                })
                .collect();
            writeln!(stdout, "{}", serde_json::Value::from(list))?;
        } else if !adapters.is_empty() {
            let header = [
                "index",
                "name",
                "kind",
                "backend",
                "driver",
                "memory",
                "buffer",
                "binding",
                "workgroup",
                "f16",
                "subgroup",
                "timestamps",
            ];
            let rows: Vec<_> = adapters.iter().enumerate().map(|(index, adapter)| row(index, adapter)).collect();
            write!(stdout, "{}", table::aligned(&header, &rows))?;
        }
        if adapters.is_empty() {
            let nothing = moebius::Error::NoAdapter { wanted: "auto".to_owned(), found: Vec::new() };
            talk!("{nothing}\n\nhint: {}", nothing.hint().unwrap_or_default());
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn row(index: usize, adapter: &AdapterSummary) -> Vec<String> {
    let caps = &adapter.caps;
    vec![
        format!("gpu:{index}"),
        adapter.name.clone(),
        caps.kind.to_string(),
        adapter.backend.clone(),
        adapter.driver.clone(),
        caps.memory_bytes.map_or_else(|| "unknown".to_owned(), human_bytes),
        human_bytes(caps.max_buffer_bytes),
        human_bytes(caps.max_binding_bytes),
        format!("{} x {}", caps.max_invocations, human_bytes(caps.max_workgroup_bytes.into())),
        yes_or_no(caps.shader_f16),
        caps.subgroup_size.map_or_else(|| "no".to_owned(), |size| size.to_string()),
        yes_or_no(caps.timestamps),
    ]
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}
