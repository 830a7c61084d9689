//! Compiles compute shaders with whatever Vulkan driver the loader finds, and prints what its compiler says of each: a JSON object per file.
//!
//! `gpu-compilers [--ir] [--checked] [--wave N] FILE.wgsl|FILE.spv...`
//!
//! --ir       also the driver's own text: on AMD NIR, ACO and the machine code
//! --checked  translate WGSL as browsers do, with bounds checks and counted loops
//! --wave N   ask for subgroups of N invocations, which wgpu cannot
//!
//! Nothing runs. With Mesa's RADV and RADV_FORCE_FAMILY=navi31 no GPU is needed: the device has no memory, but it compiles.

use ash::vk;
use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use serde_json::{Map, Value, json};
use std::error::Error;
use std::ffi::{CStr, CString};
use std::path::Path;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Default)]
struct Options {
    ir: bool,
    checked: bool,
    wave: Option<u32>,
    files: Vec<String>,
}

fn main() -> Result<()> {
    let mut options = Options::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--ir" => options.ir = true,
            "--checked" => options.checked = true,
            "--wave" => options.wave = Some(args.next().ok_or("--wave needs a number")?.parse()?),
            _ => options.files.push(arg),
        }
    }
    let device = Device::open()?;
    for file in &options.files {
        let mut answer = Map::new();
        answer.insert("device".into(), device.name.clone().into());
        answer.insert("file".into(), file.as_str().into());
        if let Err(error) = spirv(file, options.checked).and_then(|words| device.compile(&words, &options, &mut answer)) {
            answer.insert("error".into(), error.to_string().into());
        }
        println!("{}", Value::Object(answer));
    }
    Ok(())
}

fn spirv(file: &str, checked: bool) -> Result<Vec<u32>> {
    if Path::new(file).extension().is_some_and(|extension| extension == "spv") {
        let bytes = std::fs::read(file)?;
        return Ok(bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect());
    }
    // Browsers demand the directive, naga does not know it.
    let source: String = std::fs::read_to_string(file)?
        .lines()
        .map(|line| if line.starts_with("enable subgroups") { "\n".into() } else { format!("{line}\n") })
        .collect();
    let module = naga::front::wgsl::parse_str(&source).map_err(|error| error.emit_to_string(&source))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .map_err(|error| error.emit_to_string(&source))?;
    // As wgpu-hal translates for Vulkan 1.3: Device::shader_module of src/gpu/device.rs asks for unchecked(), and pipeline.rs has staged
    // kernels zero nothing.
    let policy = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    let staged = source.lines().next().is_some_and(|line| line.split(' ').any(|word| word == "STAGED"));
    let options = spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        bounds_check_policies: BoundsCheckPolicies {
            index: policy,
            buffer: BoundsCheckPolicy::Unchecked, // robustBufferAccess2
            image_load: policy,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: if staged {
            spv::ZeroInitializeWorkgroupMemoryMode::None
        } else {
            spv::ZeroInitializeWorkgroupMemoryMode::Native
        },
        force_loop_bounding: checked,
        emit_int_div_checks: checked,
        ..Default::default()
    };
    Ok(spv::write_vec(&module, &info, &options, None)?)
}

struct Device {
    raw: ash::Device,
    executables: ash::khr::pipeline_executable_properties::Device,
    name: String,
}

/// What pipeline layout and report have to know of a module.
#[derive(Default)]
struct Interface {
    entry: CString,
    workgroup: Vec<u32>,
    bindings: Vec<vk::DescriptorSetLayoutBinding<'static>>,
    push_constants: bool,
}

impl Interface {
    fn of(words: &[u32]) -> Result<Self> {
        const ENTRY_POINT: u32 = 15;
        const EXECUTION_MODE: u32 = 16;
        const VARIABLE: u32 = 59;
        const DECORATE: u32 = 71;
        let mut interface = Interface { entry: CString::new("main")?, ..Default::default() };
        let mut numbers = std::collections::HashMap::new();
        let mut at = 5;
        while at < words.len() {
            let (operation, length) = (words[at] & 0xffff, (words[at] >> 16) as usize);
            let operands = &words[at + 1..at + length.max(1)];
            match operation {
                ENTRY_POINT => {
                    let bytes: Vec<u8> = operands[2..].iter().flat_map(|word| word.to_le_bytes()).collect();
                    interface.entry = CStr::from_bytes_until_nul(&bytes)?.to_owned();
                }
                EXECUTION_MODE if operands[1] == 17 => interface.workgroup = operands[2..].to_vec(),
                DECORATE if operands[1] == 33 => drop(numbers.insert(operands[0], operands[2])),
                VARIABLE => match (operands[2], numbers.get(&operands[1])) {
                    (9, _) => interface.push_constants = true,
                    (2 | 12, Some(number)) if !interface.bindings.iter().any(|binding| binding.binding == *number) => {
                        let ty = if operands[2] == 12 { vk::DescriptorType::STORAGE_BUFFER } else { vk::DescriptorType::UNIFORM_BUFFER };
                        interface.bindings.push(
                            vk::DescriptorSetLayoutBinding::default()
                                .binding(*number)
                                .descriptor_type(ty)
                                .descriptor_count(1)
                                .stage_flags(vk::ShaderStageFlags::COMPUTE),
                        );
                    }
                    _ => {}
                },
                _ => {}
            }
            at += length.max(1);
        }
        Ok(interface)
    }
}

impl Device {
    fn open() -> Result<Self> {
        // SAFETY: everything lives until the process ends.
        unsafe {
            let entry = Box::leak(Box::new(ash::Entry::load()?));
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let instance = entry.create_instance(&vk::InstanceCreateInfo::default().application_info(&application), None)?;
            let physical = *instance.enumerate_physical_devices()?.first().ok_or("no Vulkan device")?;
            let properties = instance.get_physical_device_properties(physical);
            let name = properties.device_name_as_c_str()?.to_string_lossy().into_owned();

            // All that the device has, robust access included, as wgpu wants it.
            let offered = instance.enumerate_device_extension_properties(physical)?;
            let offers = |wanted: &CStr| offered.iter().any(|extension| extension.extension_name_as_c_str() == Ok(wanted));
            let mut extensions = vec![ash::khr::pipeline_executable_properties::NAME.as_ptr()];
            let mut f11 = vk::PhysicalDeviceVulkan11Features::default();
            let mut f12 = vk::PhysicalDeviceVulkan12Features::default();
            let mut f13 = vk::PhysicalDeviceVulkan13Features::default();
            let mut robust = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
            let mut executable = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default();
            let mut features =
                vk::PhysicalDeviceFeatures2::default().push_next(&mut f11).push_next(&mut f12).push_next(&mut f13).push_next(&mut executable);
            if offers(ash::ext::robustness2::NAME) {
                extensions.push(ash::ext::robustness2::NAME.as_ptr());
                features = features.push_next(&mut robust);
            }
            let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default();
            if offers(ash::khr::cooperative_matrix::NAME) {
                extensions.push(ash::khr::cooperative_matrix::NAME.as_ptr());
                features = features.push_next(&mut matrices);
            }
            instance.get_physical_device_features2(physical, &mut features);
            let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
            let info = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queues)
                .enabled_extension_names(&extensions)
                .push_next(&mut features);
            let raw = instance.create_device(physical, &info, None)?;
            let executables = ash::khr::pipeline_executable_properties::Device::new(&instance, &raw);
            Ok(Device { raw, executables, name })
        }
    }

    fn compile(&self, words: &[u32], options: &Options, answer: &mut Map<String, Value>) -> Result<()> {
        let interface = Interface::of(words)?;
        answer.insert("workgroup".into(), interface.workgroup.into());
        // SAFETY: plain object creation; nothing is destroyed, the process is short.
        unsafe {
            let layout = self.raw.create_descriptor_set_layout(
                &vk::DescriptorSetLayoutCreateInfo::default().bindings(&interface.bindings),
                None,
            )?;
            let (layouts, ranges) = ([layout], [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(128)]);
            let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&layouts);
            let layout = if interface.push_constants { layout.push_constant_ranges(&ranges) } else { layout };
            let layout = self.raw.create_pipeline_layout(&layout, None)?;
            let module = self.raw.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(words), None)?;
            let mut required = vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo::default();
            let mut stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(&interface.entry)
                .flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE); // as wgpu with Features::SUBGROUP
            if let Some(size) = options.wave {
                required.required_subgroup_size = size;
                stage = stage.flags(vk::PipelineShaderStageCreateFlags::empty()).push_next(&mut required);
            }
            let mut flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR;
            if options.ir {
                flags |= vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
            }
            let info = vk::ComputePipelineCreateInfo::default().flags(flags).stage(stage).layout(layout);
            let pipelines = self.raw.create_compute_pipelines(vk::PipelineCache::null(), &[info], None);
            let pipeline = pipelines.map_err(|(_, error)| error)?[0];

            let of_pipeline = vk::PipelineInfoKHR::default().pipeline(pipeline);
            let properties = self.executables.get_pipeline_executable_properties(&of_pipeline)?;
            // Intel compiles a shader for several widths; each is an executable.
            let all: Result<Vec<Value>> = properties
                .iter()
                .enumerate()
                .map(|(index, properties)| self.executable(pipeline, index as u32, properties, options.ir))
                .collect();
            answer.insert("executables".into(), all?.into());
        }
        Ok(())
    }

    /// # Safety
    /// The pipeline must have an executable of that index.
    unsafe fn executable(
        &self,
        pipeline: vk::Pipeline,
        index: u32,
        properties: &vk::PipelineExecutablePropertiesKHR,
        ir: bool,
    ) -> Result<Value> {
        let of_executable = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(index);
        let mut answer = Map::new();
        let text = |chars: &[std::ffi::c_char]| -> String {
            chars.iter().map_while(|c| (*c != 0).then_some(*c as u8 as char)).collect()
        };
        answer.insert("name".into(), text(&properties.name).into());
        answer.insert("subgroup".into(), properties.subgroup_size.into());
        unsafe {
            for statistic in self.executables.get_pipeline_executable_statistics(&of_executable)? {
                let value = match statistic.format {
                    vk::PipelineExecutableStatisticFormatKHR::FLOAT64 => json!(statistic.value.f64),
                    vk::PipelineExecutableStatisticFormatKHR::INT64 => json!(statistic.value.i64),
                    vk::PipelineExecutableStatisticFormatKHR::BOOL32 => json!(statistic.value.b32 != 0),
                    _ => json!(statistic.value.u64),
                };
                answer.insert(text(&statistic.name), value);
            }
            if ir {
                answer.insert("ir".into(), self.representations(&of_executable)?);
            }
        }
        Ok(Value::Object(answer))
    }

    /// # Safety
    /// As [`executable`](Self::executable).
    unsafe fn representations(&self, of_executable: &vk::PipelineExecutableInfoKHR) -> Result<Value> {
        let get = self.executables.fp().get_pipeline_executable_internal_representations_khr;
        let mut count = 0;
        unsafe { get(self.raw.handle(), of_executable, &mut count, std::ptr::null_mut()).result()? };
        let mut all = vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
        unsafe { get(self.raw.handle(), of_executable, &mut count, all.as_mut_ptr()).result()? };
        let mut texts: Vec<Vec<u8>> = all.iter().map(|one| vec![0; one.data_size]).collect();
        for (one, text) in all.iter_mut().zip(&mut texts) {
            one.p_data = text.as_mut_ptr().cast();
        }
        unsafe { get(self.raw.handle(), of_executable, &mut count, all.as_mut_ptr()).result()? };
        let named = all.iter().zip(&texts).map(|(one, text)| {
            let name = one.name_as_c_str().map_or_else(|_| "?".into(), |name| name.to_string_lossy().into_owned());
            let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
            (name, Value::from(String::from_utf8_lossy(&text[..end])))
        });
        Ok(Value::Object(named.collect()))
    }
}
