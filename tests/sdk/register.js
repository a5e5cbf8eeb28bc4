// Devices with Azure's own SDK, unmodified, that register over HTTPS: reads a JSON task on standard input, writes one JSON
// result a device. Run by tests/integration/test_dps_sdk.py; MUSTER_SDK is the folder the packages are in.
const { createRequire } = require('node:module');
const https = require('node:https');
const fs = require('node:fs');
const sdk = createRequire(`${process.env.MUSTER_SDK}/`);
const { ProvisioningDeviceClient } = sdk('azure-iot-provisioning-device');
const { Http } = sdk('azure-iot-provisioning-device-http');

function security(device) {
  if (device.symmetricKey) return new (sdk('azure-iot-security-symmetric-key').SymmetricKeySecurityClient)(device.id, device.symmetricKey);
  if (device.cert) {
    const { X509Security } = sdk('azure-iot-security-x509');
    return new X509Security(device.id, { cert: fs.readFileSync(device.cert, 'utf8'), key: fs.readFileSync(device.key, 'utf8') });
  }
  const tss = sdk('tss.js'); // the simulator's protocol
  return new (sdk('azure-iot-security-tpm').TpmSecurityClient)(device.id, new tss.Tpm(true, '127.0.0.1', device.tpmPort));
}

async function register(task, device) {
  const client = ProvisioningDeviceClient.create(task.host, task.scope, new Http(), security(device));
  if (device.payload) client.setProvisioningPayload(device.payload);
  try {
    return { id: device.id, result: await client.register() };
  } catch (error) {
    return { id: device.id, error: error.name, message: `${error.message} ${error.responseBody || ''}`, result: error.result };
  }
}

async function main() {
  const task = JSON.parse(fs.readFileSync(0, 'utf8'));
  https.globalAgent.options.port = https.globalAgent.defaultPort = task.port; // the SDK knows no other than 443
  const results = [];
  for (const device of task.devices) results.push(await register(task, device));
  process.stdout.write(JSON.stringify(results));
  process.exit(0); // the SDK leaves sockets open
}

main().catch((error) => { console.error(error); process.exit(1); });
